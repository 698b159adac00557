// The tests, from a fresh clone after npm ci, on as many levels; the last line counts cases, a check without cases as one.
//   npm test            what a change is tested with: build, lint, native and TypeScript tests in quick form
//   npm run test:ci     what CI adds: long tests, the same tests under sanitizers and on Arm, CUDA kernels and library, the package
//   npm run test:full   all of both, in whole, and what takes longest: all GPU architectures, mutants of the kernels
// SDAR_TEST_COUNTS names a file that takes npm test's counts in place of the last line; test:ci adds them to its own.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { join } from "node:path";
import { buildAddon } from "./build.mjs";
import { BuildError, has, root } from "./cmake.mjs";
import { consumerTests } from "./consumers.mjs";
import { canCross, crossTests } from "./cross-arm64.mjs";
import { allArchitectures, buildCudaLibrary, canBuildCuda } from "./cuda-library.mjs";
import { gpuBenchCheck } from "./gpu-bench.mjs";
import { kernelBenchCheck } from "./kernel-bench.mjs";
import { mutateCuda } from "./mutate-cuda.mjs";
import { cudaQuickTests, failures, quickTests as nativeQuickTests, plainTests, quick } from "./native-tests.mjs";
import { prebuildAll } from "./prebuilds.mjs";
import { sanitizedTests } from "./sanitize.mjs";
import { typescriptTests } from "./typescript-tests.mjs";

/** Begin the names of TypeScript tests that CI runs, and npm test leaves out: fault injection, real peers, tools. */
const long = [
  ...["15-responsive", "22-lifecycle", "25-chaos", "27-loading", "31-bench", "35-train-faults", "36-evidence"],
  ...["40-examples", "50-server-hostile", "50-server-process", "51-optional", "51-pull", "53-", "54-", "55-"],
];

const full = process.argv.includes("--full");
const added = process.argv.includes("--ci");
const total = { passed: 0, failed: 0 };
const broken = [];
/** Which TypeScript tests left cases out: each reason, with their files. */
const skipped = {};

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

const run = (command, ...args) => spawnSync(command, args, { cwd: root, stdio: "inherit" }).status;
const node = (script, ...args) => run(process.execPath, script, ...args);
const tool = (path) => join(root, "node_modules", path);
const one = (status) => (status === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 });

function typescriptFiles(thatAreLong) {
  const names = readdirSync(join(root, "test")).filter((name) => name.endsWith(".test.ts"));
  const isLong = (name) => long.some((begin) => name.startsWith(begin));
  return names
    .filter((name) => thatAreLong === undefined || isLong(name) === thatAreLong)
    .map((name) => `test/${name}`);
}

async function build() {
  await step("native addon", async () => one((await buildAddon()) ? 0 : 1));
  await step("TypeScript build", () => one(node(tool("typescript/bin/tsc"), "-p", "tsconfig.build.json")));
}

async function lint() {
  await step("types of tests and benchmarks", () => one(node(tool("typescript/bin/tsc"), "--noEmit")));
  await step("layout and lint (biome)", () =>
    one(node(tool("@biomejs/biome/bin/biome"), "check", "--error-on-warnings")),
  );
  await step("layout of native sources", () => one(node("scripts/clang-format.mjs")));
  await step("directions of includes", () => one(node("scripts/check-includes.mjs")));
  await step("directions of imports", () => one(node("scripts/check-imports.mjs")));
  await step("tables on both sides of the addon", () => one(node("scripts/check-tables.mjs")));
  await step("sizes of files", () => one(node("scripts/check-files.mjs")));
}

async function quickTests() {
  await step("native tests, quick", nativeQuickTests);
  await step("TypeScript tests, quick", () =>
    typescriptTests(typescriptFiles(false), { env: quick(), jobs: Math.min(availableParallelism(), 2), skipped }),
  );
}

/** Without what quickTests() shortens, and with what SDAR_TEST_FULL adds. */
async function wholeTests() {
  const env = { SDAR_TEST_FULL: "1" };
  await step("native tests", () => plainTests([], env));
  await step("TypeScript tests", () => typescriptTests(typescriptFiles(), { env, skipped }));
}

async function otherMachines() {
  await step("native tests, address and undefined behaviour", () => sanitizedTests("asan", { full }));
  await step("native tests, threads", () => sanitizedTests("tsan"));
  if (canCross()) await step("native tests on 64-bit Arm", () => crossTests());
}

/** The packed package with the addon that it ships: in CI on every runtime, in full also with every package manager and bundler. */
async function consumers() {
  await step("the prebuilt addon", async () => one(await prebuildAll([process.arch])));
  const runtimes = ["npm", "newcomer", "node22", "node24", "bun", "deno", "clone"];
  await step("the package as its users install it", () => consumerTests(full ? [] : runtimes));
}

async function gpu() {
  if (canBuildCuda())
    await step("CUDA library", async () => one((await buildCudaLibrary(full ? allArchitectures : ["90a"])) ? 0 : 1));
  if (!has("nvcc")) return console.log("\n== CUDA kernels for a GPU: skipped, nvcc was not found");
  await step("CUDA kernels: registers, spills, occupancy, instructions", () =>
    one(node("scripts/cuda-report.mjs", ...(full ? ["--all"] : []))),
  );
  await step("bench/gpu with nvcc", () => gpuBenchCheck(full));
}

const countsFile = process.env.SDAR_TEST_COUNTS;
/** The counts of an npm test before; that none were left counts as a failure. */
function takeCounts() {
  const before = existsSync(countsFile)
    ? JSON.parse(readFileSync(countsFile, "utf8"))
    : { passed: 0, failed: 1, broken: ["npm test, which broke off"], failures: [], skipped: {} };
  rmSync(countsFile, { force: true });
  total.passed += before.passed;
  total.failed += before.failed;
  broken.unshift(...before.broken);
  failures.unshift(...before.failures);
  for (const [reason, files] of Object.entries(before.skipped))
    skipped[reason] = [...files, ...(skipped[reason] ?? [])];
}

console.log(
  `${cpus()[0]?.model ?? "a processor without a name"}, ${availableParallelism()} cores, Node ${process.version}`,
);
if (added || full) {
  if (full) {
    await build();
    await lint();
  }
  await gpu(); // a library that TypeScript tests open where it is
  if (full) await wholeTests();
  else {
    await step("native tests of the CUDA kernels, quick", cudaQuickTests);
    await step("TypeScript tests that take long", () =>
      typescriptTests(typescriptFiles(true), { env: quick(), skipped }),
    );
  }
  await step("programs of bench/native", kernelBenchCheck);
  await otherMachines();
  if (full) await step("a soak of mixed traffic", () => one(node("bench/soak.mjs", "--minutes", "3")));
  if (full) await step("mutants of the CUDA kernels", () => mutateCuda());
  await consumers();
  await step("the package (knip, publint, attw)", () => one(run("npm", "run", "check")));
  if (countsFile) takeCounts();
} else {
  await build();
  await lint();
  await quickTests();
}

for (const failure of failures) console.log(failure);
const reasons = Object.entries(skipped).map(([reason, files]) => `${files.join(", ")} (${reason})`);
if (reasons.length > 0) console.log(`\nSkipped, in whole or in part: ${reasons.join("; ")}`);
if (broken.length > 0) console.log(`\nFailed: ${broken.join("; ")}`);
if (countsFile && !added && !full) writeFileSync(countsFile, JSON.stringify({ ...total, broken, failures, skipped }));
else console.log(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed > 0 ? 1 : 0;
