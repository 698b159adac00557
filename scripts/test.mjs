// npm test: everything from a fresh clone after npm ci. With CI set, also sanitizers and 64-bit Arm under emulation; with --full,
// the long variants too (tests read SDAR_TEST_FULL). The last line counts cases; a check without cases counts as one.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { buildAddon } from "./build.mjs";
import { BuildError, has, root } from "./cmake.mjs";
import { canCross, crossTests } from "./cross-arm64.mjs";
import { allArchitectures, buildCudaLibrary, canBuildCuda } from "./cuda-library.mjs";
import { gpuBenchCheck } from "./gpu-bench.mjs";
import { mutateCuda } from "./mutate-cuda.mjs";
import { plainTests } from "./native-tests.mjs";
import { sanitizedTests } from "./sanitize.mjs";

const full = process.argv.includes("--full");
const thorough = full || Boolean(process.env.CI);
if (full) process.env.SDAR_TEST_FULL = "1";
const total = { passed: 0, failed: 0 };
const broken = [];

async function step(name, work) {
  const start = Date.now();
  console.log(`\n== ${name}`);
  let counts;
  try {
    counts = await work();
  } catch (error) {
    console.log(error instanceof BuildError ? error.message : error);
    counts = { passed: 0, failed: 1 };
  }
  total.passed += counts.passed;
  total.failed += counts.failed;
  if (counts.failed > 0) broken.push(name);
  console.log(`== ${name}: ${counts.failed > 0 ? "FAILED" : "ok"} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
}

const node = (script, ...args) =>
  spawnSync(process.execPath, [script, ...args], { cwd: root, stdio: "inherit" }).status;
const tool = (path) => join(root, "node_modules", path);
const one = (status) => (status === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 });

/** Shows one line per file, and at the end every failure; tap's last comment counts the assertions. */
async function typescriptTests() {
  const child = spawn(process.execPath, [tool("tap/dist/esm/run.mjs"), "--reporter=tap"], {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const closed = once(child, "close");
  const lines = [];
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    if (/^(not )?ok /.test(line)) console.log(`  ${line}`);
  }
  const [status] = await closed;
  for (const [index, line] of lines.entries()) {
    if (!/^\s+not ok /.test(line)) continue;
    const end = lines.findIndex((other, i) => i > index && /^\s*(\.\.\.$|(not )?ok |1\.\.)/.test(other));
    console.log(lines.slice(index, end).join("\n"));
  }
  const counts = /^# \{ total: \d+, pass: (\d+)(?:, fail: (\d+))?/m.exec(lines.join("\n"));
  const passed = Number(counts?.[1] ?? 0);
  const failed = Number(counts?.[2] ?? 0);
  return { passed, failed: failed === 0 && (status !== 0 || passed === 0) ? 1 : failed };
}

await step("native addon", async () => one((await buildAddon()) ? 0 : 1));
if (canBuildCuda())
  await step("CUDA library", async () => one((await buildCudaLibrary(full ? allArchitectures : ["90a"])) ? 0 : 1));
await step("TypeScript build", () => one(node(tool("typescript/bin/tsc"), "-p", "tsconfig.build.json")));
await step("types of tests and benchmarks", () => one(node(tool("typescript/bin/tsc"), "--noEmit")));
await step("layout and lint (biome)", () =>
  one(node(tool("@biomejs/biome/bin/biome"), "check", "--error-on-warnings")),
);
await step("layout of native sources", () => one(node("scripts/clang-format.mjs")));
await step("direction of includes", () => one(node("scripts/check-includes.mjs")));
await step("native tests", plainTests);
await step("TypeScript tests", typescriptTests);
if (has("nvcc")) {
  await step("CUDA kernels: registers, spills, occupancy, instructions", () =>
    one(node("scripts/cuda-report.mjs", ...(full ? ["--all"] : []))),
  );
} else {
  console.log("\n== CUDA kernels for a GPU: skipped, nvcc was not found");
}
if (full) await step("mutants of the CUDA kernels", () => mutateCuda());
if (thorough) {
  await step("native tests, address and undefined behaviour", () => sanitizedTests("address,undefined"));
  await step("native tests, threads", () => sanitizedTests("thread"));
  if (canCross()) await step("native tests on 64-bit Arm", crossTests);
  await step("bench/gpu with nvcc", () => gpuBenchCheck(full));
  await step("the package (knip, publint, attw)", () =>
    one(spawnSync("npm", ["run", "check"], { cwd: root, stdio: "inherit" }).status),
  );
}

if (broken.length > 0) console.log(`\nFailed: ${broken.join("; ")}`);
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed > 0 ? 1 : 0;
