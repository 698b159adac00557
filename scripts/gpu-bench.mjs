// Whether bench/gpu holds together where nvcc is found and no card need be: node scripts/gpu-bench.mjs [--full]
// Compiles what the tests of a machine without nvcc leave out: the measurements, the oracle tests as they run on a
// device, and their kernels for sm_80. With --full it builds all of sdar-gpu-bench for sm_80 and sm_90a and starts it: it
// has to run, or to say that no device answers.
import { spawn, spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { cmake, has, isMain, orExit, root } from "./cmake.mjs";

const device = join(root, "bench", "gpu", "device");
const tests = join(root, "test", "native");
/** Tests that no device runs, as bench/gpu/CMakeLists.txt leaves them out. */
const [, hostOnly] = /SDAR_KERNEL_TESTS EXCLUDE REGEX "([^"]+)"/.exec(
  readFileSync(join(root, "bench", "gpu", "CMakeLists.txt"), "utf8"),
);
const includes = ["native", "bench/gpu", "test", "test/native", "third_party"].map(
  (folder) => `-I${join(root, folder)}`,
);

function compile(file) {
  const kind = file.endsWith(".cu")
    ? ["-arch=sm_80", "-fmad=false", "-cubin", "-o", "/dev/null"]
    : ["-c", "-Xcompiler=-fsyntax-only,-Wall,-Wextra", "-o", "/dev/null"];
  const defines = [`-DSDAR_SOURCE_ROOT="${root}/"`];
  const child = spawn("nvcc", ["-std=c++20", ...includes, ...defines, ...kind, file], { cwd: root });
  let text = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (data) => {
      text += data;
    });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status) => resolve({ file, ok: status === 0, text }));
  });
}

/** Compiles each for itself; the numbers of files that did and did not. */
async function compileAll() {
  const files = [
    ...readdirSync(device)
      .filter((name) => /\.(cc|cu)$/.test(name))
      .map((name) => join(device, name)),
    join(tests, "cuda_device", "device.cc"),
    ...readdirSync(tests)
      .filter((name) => /^cuda_.*_test\.cc$/.test(name) && !new RegExp(hostOnly).test(name))
      .map((name) => join(tests, name)),
  ];
  const counts = { passed: 0, failed: 0 };
  const workers = Array.from({ length: Math.min(4, availableParallelism()) }, async () => {
    for (let file = files.shift(); file; file = files.shift()) {
      const { ok, text } = await compile(file);
      counts[ok ? "passed" : "failed"]++;
      if (!ok) console.log(text);
    }
  });
  await Promise.all(workers);
  return counts;
}

async function buildAll() {
  const options = { CMAKE_BUILD_TYPE: "Release", SDAR_ADDON: "OFF", SDAR_CUDA: "OFF", SDAR_GPU_BENCH: "ON" };
  const build = await cmake("build/gpu-bench", options, { label: "sdar-gpu-bench", targets: ["sdar-gpu-bench"] });
  const executable = join(build, "bench", "gpu", "sdar-gpu-bench");
  const { status, stdout } = spawnSync(executable, ["oracle"], { encoding: "utf8" });
  console.log(stdout.trimEnd());
  const answers = status === 0 || (status === 2 && /^1\.\.0 # SKIP /.test(stdout));
  return { passed: Number(answers), failed: Number(!answers) };
}

export async function gpuBenchCheck(full) {
  if (!has("nvcc")) {
    console.log("skipped: nvcc was not found");
    return { passed: 0, failed: 0 };
  }
  return full ? await buildAll() : await compileAll();
}

if (isMain(import.meta.url)) {
  const { passed, failed } = await orExit(gpuBenchCheck(process.argv.includes("--full")));
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}
