// The command line at a terminal, which util-linux's script makes.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { main } from "./sdar.js";

const patienceMs = 60_000;

export class Terminal {
  /** all that was on it, control sequences included */
  shown = "";
  #seen = 0;
  readonly #child: ReturnType<typeof spawn>;
  readonly #closed: Promise<unknown[]>;

  /** Undefined where there is no script(1). */
  static async start(args: string[], env: NodeJS.ProcessEnv = {}): Promise<Terminal | undefined> {
    // A shell that stays would get Ctrl-C, too, and some end by it afterwards, whatever the command ended with.
    const command = ["exec", process.execPath, main, ...args].join(" ");
    const child = spawn("script", ["-qec", command, "/dev/null"], {
      stdio: "pipe",
      env: { ...process.env, SHELL: "/bin/sh", TERM: "xterm-256color", ...env },
    });
    const there = await Promise.race([once(child, "spawn").then(() => true), once(child, "error").then(() => false)]);
    return there ? new Terminal(child) : undefined;
  }

  private constructor(child: ReturnType<typeof spawn>) {
    this.#child = child;
    this.#closed = once(child, "close");
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.shown += text;
    });
  }

  type(text: string): void {
    this.#child.stdin?.write(text);
  }

  /** What was shown since the last call, until it matches. */
  async until(pattern: RegExp): Promise<string> {
    const late = performance.now() + patienceMs;
    for (;;) {
      const match = pattern.exec(this.shown.slice(this.#seen));
      if (match) {
        const end = this.#seen + match.index + match[0].length;
        const text = this.shown.slice(this.#seen, end);
        this.#seen = end;
        return text;
      }
      if (performance.now() > late || this.#child.exitCode !== null) {
        throw new Error(`no ${pattern} in ${JSON.stringify(this.shown.slice(this.#seen))}`);
      }
      await sleep(10);
    }
  }

  /** The exit code, once the command has ended. */
  async closed(): Promise<unknown> {
    return (await this.#closed)[0];
  }

  kill(): void {
    this.#child.kill();
  }
}
