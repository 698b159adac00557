// What measurements come to: medians, the machine they were made on, JSON.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { loadBinding } from "../binding.js";
import { packageRoot, readJson } from "../checkpoint.js";

/** The middle of some numbers; NaN of none. */
export function median(values: Iterable<number>): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

export const sum = (values: Iterable<number>): number => [...values].reduce((total, value) => total + value, 0);

/** Maximum of bytes that this process has had in memory at once. */
export function peakMemory(): number {
  const status = existsSync("/proc/self/status") ? readFileSync("/proc/self/status", "utf8") : "";
  const kilobytes = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  return 1024 * (kilobytes ? Number(kilobytes) : process.resourceUsage().maxRSS);
}

export function describeMachine() {
  return {
    cpu: cpus()[0]?.model.trim() || process.arch,
    isa: loadBinding().instructionSets(),
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    platform: `${process.platform}-${process.arch}`,
    kernel: release(),
    node: process.version,
    loadAverage: loadavg()[0] ?? 0,
  };
}

/** The commit this was built from when it lies in a repository, and whether files differ from it. */
function describeCommit(): { id: string; modified: boolean } | undefined {
  if (!existsSync(join(packageRoot, ".git"))) return undefined;
  const git = (...args: string[]) =>
    execFileSync("git", ["-C", packageRoot, ...args], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  try {
    return { id: git("rev-parse", "HEAD"), modified: git("status", "--porcelain", "--untracked-files=no") !== "" };
  } catch {
    return undefined;
  }
}

export interface Report {
  results: object[];
  settings: object;
  [more: string]: unknown;
}

/** Prints the report with `json`, and writes it with `out`: to that file, or one in bench/results named after `name`. */
export function deliver(name: string, report: Report, { json, out }: { json?: boolean; out?: string | true }): void {
  if (!json && out === undefined) return;
  const machine = describeMachine();
  const version = readJson(join(packageRoot, "package.json"), "FILE_UNREADABLE")?.version;
  const { results, settings, ...more } = report;
  const date = new Date().toISOString();
  const all = { results, machine, settings, ...more, version, commit: describeCommit(), date };
  // Lists of numbers on one line each.
  const text = JSON.stringify(all, null, 1).replaceAll(/\[[\d\s.,e+-]+\]/g, (list) => list.replaceAll(/\s+/g, ""));
  if (json) process.stdout.write(`${text}\n`);
  if (out === undefined) return;
  const slug = `${machine.cpu} ${machine.isa[0]}`
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-|-$/g, "");
  const path = resolve(out === true ? join("bench", "results", `${name}-${slug}.json`) : out);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${text}\n`);
  process.stderr.write(`${path}\n`);
}

/** Lines of a table, columns aligned to the right but for the first. */
export function table(rows: (string | number)[][]): string {
  const cells = rows.map((row) => row.map(String));
  const widths = cells[0]?.map((_, i) => Math.max(...cells.map((row) => row[i]?.length ?? 0))) ?? [];
  const line = (row: string[]) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join("  ");
  return `${cells.map(line).join("\n")}\n`;
}
