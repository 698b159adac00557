// What tests of the worker share: a queue of its own, commands on it, and what is in files of results.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Test } from "tap";
import type { Engine } from "../lib/engine.js";
import { deadJobs, enqueue, withQueue } from "../lib/worker/queue.js";
import { ResultsFile } from "../lib/worker/results.js";
import { work } from "../lib/worker/worker.js";
import { TestRedis } from "./redis.js";
import { main } from "./sdar.js";

export type Line = Record<string, unknown> & { job: string; line: number; id?: unknown };

export const read = (file: string) => (existsSync(file) ? readFileSync(file, "utf8") : "");
export const linesOf = (file: string): Line[] =>
  read(file)
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line));

export async function setUp(t: Test, lines: (object | string)[]) {
  const redis = await TestRedis.start(t);
  const folder = t.testdir({});
  const [input, results] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
  writeFileSync(input, lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n"));
  const place = { redis: redis.socket, queue: "test" };
  const flags = ["--redis", redis.socket, "--queue", "test"];
  return {
    redis,
    folder,
    input,
    results,
    flags,
    enqueue: () => enqueue(input, place, { priority: 0, attempts: 2, backoffMs: 20 }),
    /** Works in this process until nothing is left. */
    async finish(engine: Engine, file = results) {
      const told: string[] = [];
      const output = await ResultsFile.open(file);
      const options = { engine, results: output, ...place, concurrency: 96, stalledMs: 1000, once: true };
      const tally = await work({
        ...options,
        signal: new AbortController().signal,
        log: (text) => void told.push(text),
      });
      await output.close();
      return { ...tally, told };
    },
    /** A process that works until it is ended, or with `--once` until nothing is left. */
    begin(file = results, ...more: string[]) {
      const args = [main, "worker", ...flags, "--stalled-ms", "1000", "--results", file, ...more];
      const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
      t.teardown(() => child.kill("SIGKILL"));
      let stderr = "";
      child.stderr.on("data", (text) => {
        stderr += text;
      });
      return { child, closed: once(child, "close"), stderr: () => stderr };
    },
    dead: (retry = false) =>
      withQueue(place, async (queue) => {
        const jobs = [];
        for await (const job of deadJobs(queue)) jobs.push(job);
        if (retry) await queue.retryJobs({ state: "failed" });
        return jobs.sort((a, b) => a.line - b.line);
      }),
  };
}

/** Until so many lines are in the files together, or the process has ended. */
export async function until(files: readonly string[], lines: number, child: { exitCode: number | null }) {
  // Seldom, as reading costs the workers their time.
  const count = () => files.reduce((sum, file) => sum + read(file).split("\n").length - 1, 0);
  while (count() < lines && child.exitCode === null) await sleep(50);
}
