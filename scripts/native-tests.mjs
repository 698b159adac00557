// Builds the native tests and runs them, one process each; they print TAP. node scripts/native-tests.mjs [cache_test …]
// SDAR_TEST_QUICK=1 gives their short forms, SDAR_CUDA_ORDERS=1 one order of fibers of each CUDA kernel.
import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { folder as addonFolder, options as addonOptions } from "./build.mjs";
import { cmake, isMain, orExit, root } from "./cmake.mjs";

const limitMinutes = 40;

/** What failed, in order, each with the comments that say why; for the end of a long log. */
export const failures = [];

function runOne(name, build, wrapper, env) {
  return new Promise((resolve) => {
    const start = Date.now();
    const [command, ...args] = [...wrapper, join(build, name)];
    const child = spawn(command, args, { cwd: root, env: { ...process.env, ...env }, timeout: limitMinutes * 60e3 });
    const counts = { passed: 0, failed: 0 };
    let last = "";
    let comments = [];
    createInterface({ input: child.stdout }).on("line", (line) => {
      last = line;
      if (line.startsWith("#")) comments.push(line);
      else if (line.startsWith("ok ")) counts.passed++;
      else if (line.startsWith("not ok ")) {
        counts.failed++;
        failures.push(...[line, ...comments].map((part) => `${name}: ${part}`));
      }
      if (/^(not )?ok /.test(line)) comments = [];
      if (/^(not ok|#)/.test(line)) console.log(`  ${name}: ${line}`);
    });
    child.stderr.pipe(process.stderr);
    child.on("error", (error) => console.log(`  ${name}: ${error.message}`));
    child.on("close", (code, signal) => {
      // Its plan comes last; without it, or with a status that no failed case explains, the test itself broke off.
      if (!last.startsWith("1..") || (code !== 0 && counts.failed === 0)) {
        counts.failed++;
        const end = `${name}: ended with ${signal ?? `status ${code}`} after ${counts.passed} cases that passed`;
        failures.push(end, ...comments.map((comment) => `${name}: ${comment}`));
        console.log(`  ${end}`);
      }
      const seconds = ((Date.now() - start) / 1000).toFixed(1);
      console.log(`  ${name}: ${counts.passed} ok, ${counts.failed} not ok (${seconds} s)`);
      resolve(counts);
    });
  });
}

/** Calls `work` with each item, `jobs` at once. */
export async function inParallel(items, work, jobs = availableParallelism()) {
  const rest = [...items];
  await Promise.all(
    Array.from({ length: jobs }, async () => {
      for (let item = rest.shift(); item !== undefined; item = rest.shift()) await work(item);
    }),
  );
}

/** Whether a test is among those named; "cuda_*" names all that begin so. */
const isNamed = (test, names) =>
  names.some((name) => (name.endsWith("*") ? test.startsWith(name.slice(0, -1)) : test === name));

const namesOf = (only, filter = {}) =>
  readdirSync(join(root, "test", "native"))
    .filter((name) => name.endsWith("_test.cc"))
    .map((name) => name.slice(0, -3))
    .filter((name) => only.length === 0 || isNamed(name, only))
    .filter((name) => new RegExp(filter.include?.name ?? "").test(name))
    .filter((name) => !filter.exclude || !new RegExp(filter.exclude.name).test(name))
    .sort();

/**
 * Returns the numbers of cases that passed and failed. `wrapper` is put before each test's command line; `only` names the
 * tests to build and run, none named means all that `filter` lets through, which is a test preset's.
 */
async function nativeTests({ folder, options, label, filter, wrapper = [], env = {}, only = [] }) {
  const names = namesOf(only, filter);
  const build = await cmake(folder, options, { label, targets: names });
  const total = { passed: 0, failed: 0 };
  await inParallel(names, async (name) => {
    const { passed, failed } = await runOne(name, build, wrapper, env);
    total.passed += passed;
    total.failed += failed;
  });
  return total;
}

/** The preset of that name among CMakePresets.json's "configurePresets" or "testPresets", with what it inherits. */
function presetOf(kind, name) {
  const presets = JSON.parse(readFileSync(join(root, "CMakePresets.json"), "utf8"))[kind];
  const { inherits, ...own } = presets.find((preset) => preset.name === name);
  const base = inherits ? presetOf(kind, inherits) : {};
  return { ...base, ...own, cacheVariables: { ...base.cacheVariables, ...own.cacheVariables } };
}

/** The tests as `ctest --preset` builds and runs them, with all of `filter` where the preset's is not wanted. */
export function presetTests(preset, { only = [], wrapper = [], filter = undefined } = {}) {
  const { cacheVariables: options } = presetOf("configurePresets", preset);
  const test = presetOf("testPresets", preset);
  const emulator = options.CMAKE_CROSSCOMPILING_EMULATOR?.split(";") ?? [];
  return nativeTests({
    folder: `build/${preset}`,
    options,
    label: `native tests, preset ${preset}`,
    filter: only.length > 0 ? undefined : (filter ?? test.filter),
    wrapper: [...wrapper, ...emulator],
    env: test.environment,
    only,
  });
}

const plain = () => ({ folder: addonFolder, options: addonOptions(true), label: "native tests" });
export const plainTests = (only = [], env = {}) => nativeTests({ ...plain(), only, env });
/** The environment of the tests' quick form. */
export const quick = () => presetOf("testPresets", "quick").environment;
/** The tests in quick form, as `ctest --preset dev` runs them. */
export const quickTests = () =>
  nativeTests({ ...plain(), filter: presetOf("testPresets", "dev").filter, env: quick() });
/** Those of the CUDA kernels, which take half of the compiler's time: CI runs them, without the two that take minutes. */
export const cudaQuickTests = () => {
  const filter = { include: { name: "^cuda_" }, exclude: { name: "^cuda_(model|warpgroup)_test$" } };
  return nativeTests({ ...plain(), filter, env: quick() });
};
/** Builds the tests named, without running them; they lie in `build`. */
export async function buildTests(only) {
  const names = namesOf(only);
  const { folder, options, label } = plain();
  return { build: await cmake(folder, options, { label, targets: names }), names };
}

/** For the top level of a script: prints the counts, and fails when a case failed. */
export async function report(work) {
  const { passed, failed } = await orExit(work);
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}

if (isMain(import.meta.url)) await report(plainTests(process.argv.slice(2)));
