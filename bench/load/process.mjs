// Processes of the measurement: on which cores they run, what they have used.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** Started on these cores, with a channel for messages. */
export function startOn(cores, args, options = {}) {
  const stdio = ["ignore", "pipe", "inherit", "ipc"];
  const child = spawn("taskset", ["-c", cores, process.execPath, ...args], { stdio, ...options });
  process.once("exit", () => child.kill());
  return child;
}

/** What a process says next, or answers to a message. */
export async function answerOf(child, message) {
  const waiting = new AbortController();
  const { signal } = waiting;
  if (message !== undefined) child.send(message);
  try {
    return await Promise.race([
      once(child, "message", { signal }).then(([answer]) => answer),
      once(child, "close", { signal }).then(([code]) => {
        throw new Error(`a process ended with ${code}`);
      }),
    ]);
  } finally {
    waiting.abort();
  }
}

export async function end(child) {
  const closed = once(child, "close");
  child.kill();
  await closed;
}

/** A server, and what it says of itself. `watch.mjs` tells how long its event loop was blocked. */
export async function startServer(cores, args) {
  const watch = join(import.meta.dirname, "watch.mjs");
  const child = startOn(cores, ["--import", watch, ...args]);
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  const [, port] = /:(\d+)$/.exec(line);
  /** One of its counters. */
  const counter = async (name) => {
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    return Number(new RegExp(`^${name}\\{.*\\} (\\S+)$`, "m").exec(text)[1]);
  };
  return { child, port: Number(port), counter };
}

/** Seconds of CPU that a process, and its thread of JavaScript, have used. */
export function cpuOf({ pid }) {
  const seconds = (path) => {
    const fields = readFileSync(path, "latin1").split(") ")[1].split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
  };
  return { all: seconds(`/proc/${pid}/stat`), main: seconds(`/proc/${pid}/task/${pid}/stat`) };
}

export function memoryOf({ pid }) {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))[1]) / 1024;
}
