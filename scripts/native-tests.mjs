// Builds the native tests and runs them, one process each; they print TAP. node scripts/native-tests.mjs [cache_test …]
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { folder as addonFolder, options as addonOptions } from "./build.mjs";
import { cmake, isMain, orExit, root } from "./cmake.mjs";

const limitMinutes = 40;

function runOne(name, build, wrapper, env) {
  return new Promise((resolve) => {
    const [command, ...args] = [...wrapper, join(build, name)];
    const child = spawn(command, args, { cwd: root, env: { ...process.env, ...env }, timeout: limitMinutes * 60e3 });
    const counts = { passed: 0, failed: 0 };
    let last = "";
    createInterface({ input: child.stdout }).on("line", (line) => {
      last = line;
      if (line.startsWith("ok ")) counts.passed++;
      else if (line.startsWith("not ok ")) counts.failed++;
      if (/^(not ok|#)/.test(line)) console.log(`  ${name}: ${line}`);
    });
    child.stderr.pipe(process.stderr);
    child.on("error", (error) => console.log(`  ${name}: ${error.message}`));
    child.on("close", (code, signal) => {
      // Its plan comes last; without it, or with a status that no failed case explains, the test itself broke off.
      if (!last.startsWith("1..") || (code !== 0 && counts.failed === 0)) {
        counts.failed++;
        console.log(`  ${name}: ended with ${signal ?? `status ${code}`} after ${counts.passed} cases that passed`);
      }
      resolve(counts);
    });
  });
}

/** Whether a test is among those named; "cuda_*" names all that begin so. */
const isNamed = (test, names) =>
  names.some((name) => (name.endsWith("*") ? test.startsWith(name.slice(0, -1)) : test === name));

const namesOf = (only, without) =>
  readdirSync(join(root, "test", "native"))
    .filter((name) => name.endsWith("_test.cc"))
    .map((name) => name.slice(0, -3))
    .filter((name) => (only.length === 0 ? !isNamed(name, without) : isNamed(name, only)))
    .sort();

/**
 * Returns the numbers of cases that passed and failed. `wrapper` is put before each test's command line; `only` names
 * the tests to build and run, none named means all; those named by `without` are left out of all.
 */
export async function nativeTests({ folder, options, label, wrapper = [], env = {}, only = [], without = [] }) {
  const names = namesOf(only, without);
  const build = await cmake(folder, options, { label, targets: names });
  const total = { passed: 0, failed: 0 };
  for (const name of names) {
    const start = Date.now();
    const { passed, failed } = await runOne(name, build, wrapper, env);
    total.passed += passed;
    total.failed += failed;
    console.log(`  ${name}: ${passed} ok, ${failed} not ok (${((Date.now() - start) / 1000).toFixed(1)} s)`);
  }
  return total;
}

const plain = () => ({ folder: addonFolder, options: addonOptions(true), label: "native tests" });
export const plainTests = (only = []) => nativeTests({ ...plain(), only });
/** Builds the tests named, without running them; they lie in `build`. */
export async function buildTests(only) {
  const names = namesOf(only, []);
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
