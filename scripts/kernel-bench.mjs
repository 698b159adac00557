// Whether the programs of bench/native build and measure, on little: node scripts/kernel-bench.mjs
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { folder, options } from "./build.mjs";
import { cmake, isMain } from "./cmake.mjs";
import { report } from "./native-tests.mjs";

const programs = {
  matmul_bench: ["--layers", "1", "--hidden", "256", "--intermediate", "512", "--qkv", "512", "--tokens", "1,9"],
  moe_bench: ["--hidden", "256", "--intermediate", "128", "--experts", "16", "--per-token", "2", "--tokens", "1,9"],
  lm_head_bench: ["--vocabulary", "1000", "--rows", "2"],
  attention_bench: ["--context", "64,200", "--block", "4"],
  train_bench: ["--rows", "96", "--sample", "24", "--hidden", "64", "--intermediate", "96", "--layers", "1"],
};

/** Each program's results have a time and a share of the machine's limits. */
export async function kernelBenchCheck() {
  const settings = { ...options(true), SDAR_BENCH: "ON" };
  const build = await cmake(folder, settings, { label: "bench/native", targets: Object.keys(programs) });
  const counts = { passed: 0, failed: 0 };
  for (const [name, args] of Object.entries(programs)) {
    const { results } = JSON.parse(
      execFileSync(join(build, name), [...args, "--seconds", "0.05"], { encoding: "utf8" }),
    );
    const measured = results.length > 1 && results.every((r) => (r.ms ?? r.us) > 0 && (r.read_ratio ?? r.ratio) > 0);
    if (!measured) console.log(`${name}: ${JSON.stringify(results)}`);
    counts[measured ? "passed" : "failed"]++;
  }
  return counts;
}

if (isMain(import.meta.url)) await report(kernelBenchCheck());
