// Lines that somebody types at a terminal, or that a pipe brings.
import { createInterface, type Interface } from "node:readline";
import type { History } from "./history.js";

export interface LineInputOptions {
  prompt: string;
  history: History;
  /** all that may stand in the place of a line's beginning */
  complete: (line: string) => string[];
  /** what Ctrl-C at an empty prompt says the first time; the second time ends the input */
  hint: string;
}

/** What is not at a terminal has neither prompt nor history. */
export class LineInput {
  readonly terminal = process.stdin.isTTY === true;
  readonly #options: LineInputOptions;
  readonly #readline: Interface;
  readonly #waiting: string[] = [];
  #wake = () => {};
  #ended = false;
  /** Ctrl-C was pressed at an empty prompt, and nothing else since */
  #warned = false;

  constructor(options: LineInputOptions) {
    this.#options = options;
    // An answer that goes to a file is not to have prompts in it.
    const output = process.stdout.isTTY ? process.stdout : process.stderr;
    this.#readline = this.terminal
      ? createInterface({
          input: process.stdin,
          output,
          history: options.history.lines.toReversed(),
          historySize: options.history.lines.length + 1000,
          removeHistoryDuplicates: true,
          completer: (line: string) => [options.complete(line), line],
        })
      : createInterface({ input: process.stdin });
    if (!this.terminal) return;
    this.#readline.on("line", (line) => {
      this.#warned = false;
      this.#waiting.push(line);
      this.#wake();
    });
    this.#readline.on("SIGINT", () => {
      const empty = this.#readline.line === "";
      if (empty && this.#warned) return this.close();
      output.write(empty ? `\n${options.hint}\n` : "^C\n");
      this.#warned = empty;
      // The line is nobody's; what is typed next is on a row of its own.
      Object.assign(this.#readline, { line: "", cursor: 0, prevRows: 0 });
      this.#readline.prompt();
    });
    this.#readline.on("close", () => {
      if (!this.#ended) output.write("\n");
      this.#ended = true;
      this.#wake();
    });
    this.release();
  }

  /** Each line, until the input ends. A terminal is the shell's, so that Ctrl-C is a signal, while a line is dealt with. */
  async *lines(): AsyncGenerator<string, void> {
    if (!this.terminal) {
      yield* this.#readline;
      return;
    }
    for (;;) {
      const line = await this.#next();
      if (line === undefined) return;
      this.#options.history.add(line);
      this.release();
      yield line;
    }
  }

  /** Lets the terminal be as it was. */
  release(): void {
    this.#readline.pause();
    process.stdin.setRawMode?.(false);
  }

  close(): void {
    this.#readline.close();
  }

  async #next(): Promise<string | undefined> {
    // Several lines that are pasted come at once.
    if (this.#waiting.length === 0 && !this.#ended) {
      process.stdin.setRawMode(true);
      this.#readline.setPrompt(this.#options.prompt);
      this.#readline.prompt();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#waiting.shift();
  }
}
