// One side of the comparison: a process that answers each line it is sent with one (protocol: README.md).
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

/** Seconds of CPU time of a process and all its threads, also those that have ended. */
function cpuSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100; // utime and stime in ticks of 10 ms
}

export class Side {
  #child;
  #lines;
  #name;
  #busy = { wall: 0, cpu: 0 };
  #started = { wall: 0, cpu: 0 };

  /** Starts the process and waits until it says it is ready. */
  static async start(name, command, args) {
    const side = new Side();
    side.#name = name;
    side.#child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    side.#child.on("error", (error) => console.error(`${name}: ${error.message}`));
    side.#child.stdin.on("error", () => {}); // a process that died is reported by the missing answer
    side.#lines = createInterface({ input: side.#child.stdout })[Symbol.asyncIterator]();
    side.info = await side.#read();
    if (!side.info.ready) throw new Error(`${name}: the first line must say that it is ready`);
    side.#started = side.#now();
    return side;
  }

  async #read() {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`${this.#name} ended without an answer`);
    return JSON.parse(value);
  }

  #now() {
    return { wall: performance.now() / 1000, cpu: cpuSeconds(this.#child.pid) };
  }

  /** The process's answer to a line, and how long it took as seen from here. */
  async ask(line) {
    const before = this.#now();
    this.#child.stdin.write(`${line}\n`);
    const answer = await this.#read();
    const after = this.#now();
    this.#busy.wall += after.wall - before.wall;
    this.#busy.cpu += after.cpu - before.cpu;
    return { answer, before, after };
  }

  /** Milliseconds of one forward, as the process measured it. */
  async time(tokens) {
    const { answer, before, after } = await this.ask(JSON.stringify({ tokens }));
    if (answer.tokens !== tokens || !(answer.ms > 0) || answer.ms > (after.wall - before.wall) * 1000) {
      throw new Error(`${this.#name}: ${JSON.stringify(answer)} is no answer to ${tokens} tokens`);
    }
    return answer.ms;
  }

  /** Share of one core that the process used while it was not asked: near 0, or it slowed the other side down. */
  idleLoad() {
    const now = this.#now();
    const wall = now.wall - this.#started.wall - this.#busy.wall;
    return wall > 0 ? Math.max(0, now.cpu - this.#started.cpu - this.#busy.cpu) / wall : 0;
  }

  async stop() {
    if (this.#child.exitCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.stdin.end();
    await ended;
  }
}
