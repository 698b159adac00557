// What a result was measured on.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release, totalmem } from "node:os";

const relevant =
  /^(avx|avx2|fma|f16c|avx_vnni|avx_vnni_int8|avx512\w*|amx_\w+|asimd|asimddp|asimdhp|i8mm|bf16|sve|sve2)$/;

export function describeMachine() {
  const text = readFileSync("/proc/cpuinfo", "utf8");
  const field = (name) => text.match(new RegExp(`^${name}\\s*: (.*)$`, "m"))?.[1];
  const flags = (field("flags") ?? field("Features") ?? "").split(" ").filter((flag) => relevant.test(flag));
  return {
    cpu: field("model name") ?? cpus()[0]?.model ?? process.arch,
    family: field("cpu family"),
    model: field("model"),
    stepping: field("stepping"),
    isa: flags,
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    kernel: release(),
    node: process.version,
    loadAverage: loadavg()[0],
  };
}

/** A file name's worth: amd-epyc-avx512-bf16. */
export function machineName(machine) {
  const best = ["amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "avx2", "i8mm", "asimddp", "asimd"];
  const isa = best.find((flag) => machine.isa.includes(flag)) ?? process.arch;
  return `${machine.cpu} ${isa}`
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-|-$/g, "");
}

export function commit(root) {
  const git = (...args) => execFileSync("git", ["-C", root, ...args], { encoding: "utf8" }).trim();
  return { id: git("rev-parse", "HEAD"), modified: git("status", "--porcelain", "--untracked-files=no") !== "" };
}
