// The TypeScript tests, each file in a process of its own, as `node FILE` runs it: tap's runner starts its hooks and plugins
// in every one of them, which takes longer than most of the tests.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { root } from "./cmake.mjs";
import { failures, inParallel } from "./native-tests.mjs";

const timeoutSeconds = 1800;
/** An assertion, a group of them, or how many there are. */
const told = /^(\s*)(?:((?:not )?ok) |1\.\.\d)/;

/** Counts of the assertions in a file's TAP; adds what failed to `failures`. A line after deeper ones sums those up. */
function readTap(lines, file, skipped) {
  const counts = { passed: 0, failed: 0 };
  let depth = 0;
  for (const [index, line] of lines.entries()) {
    const [, indent, status] = told.exec(line) ?? [];
    if (indent === undefined) continue;
    const group = indent.length < depth;
    depth = indent.length;
    const reason = / # SKIP (.+)/.exec(line)?.[1];
    if (reason && !skipped[reason]?.includes(file)) skipped[reason] = [...(skipped[reason] ?? []), file];
    if (!status || group || reason) continue;
    counts[status === "ok" ? "passed" : "failed"]++;
    if (status === "ok") continue;
    const end = lines.findIndex((other, i) => i > index && (/^\s*\.\.\.$/.test(other) || told.test(other)));
    failures.push([file, ...lines.slice(index, end < 0 ? undefined : end)].join("\n"));
  }
  return counts;
}

async function testFile(file, env, skipped) {
  const start = Date.now();
  const args = ["--import=./test/import.mjs", "--enable-source-maps", file];
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { ...process.env, TAP_TIMEOUT: `${timeoutSeconds}`, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), 1000 * timeoutSeconds);
  const ended = new Promise((resolve) => child.once("close", (status, signal) => resolve(signal ?? status)));
  const lines = [];
  for await (const line of createInterface({ input: child.stdout })) lines.push(line);
  const status = await ended;
  clearTimeout(timer);
  const counts = readTap(lines, file, skipped);
  // It may end by a signal or an exception, or say nothing at all.
  if (counts.failed === 0 && (status !== 0 || lines.length === 0)) {
    counts.failed = 1;
    failures.push(`${file} ended with ${status}\n${lines.slice(-20).join("\n")}`);
  }
  const seconds = ((Date.now() - start) / 1000).toFixed(1);
  console.log(`  ${file}: ${counts.passed} ok, ${counts.failed} not ok (${seconds} s)`);
  return counts;
}

/** Runs files, `jobs` at a time. Reasons for what they leave out go into `skipped`, each with its files. */
export async function typescriptTests(files, { env = {}, jobs = 1, skipped }) {
  const total = { passed: 0, failed: 0 };
  const one = async (file) => {
    const { passed, failed } = await testFile(file, env, skipped);
    total.passed += passed;
    total.failed += failed;
  };
  await inParallel(files, one, jobs);
  if (total.passed === 0) total.failed ||= 1;
  return total;
}
