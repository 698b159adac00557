// Lines that were entered, kept in a file for the next time.
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { readOptional, userState } from "../checkpoint.js";

const most = 1000;
/** Of a line: a text that somebody pasted is not worth it. */
const longest = 4096;

/** Where lines are kept; undefined for a user without a home. */
export function historyFile(): string | undefined {
  const folder = userState();
  return folder === undefined ? undefined : join(folder, "sdar-engine", "chat-history");
}

export class History {
  /** the oldest first */
  readonly lines: string[] = [];
  /** why the file cannot be used */
  problem: string | undefined;
  readonly #file: string | undefined;

  /** Without a file, only for as long as this lasts. Never throws: nobody gives up a conversation for its history. */
  constructor(file: string | undefined) {
    this.#file = file;
    if (file === undefined) return;
    this.#try(() => {
      const all = (readOptional(file) ?? "").split("\n").filter((line) => line !== "");
      this.lines.push(...all.slice(-most));
      // What several sessions append grows; now and then it is cut.
      if (all.length > 2 * most) writeFileSync(file, this.lines.map((line) => `${line}\n`).join(""), { mode: 0o600 });
    });
  }

  /** Keeps a line, unless it is the last one again, or begins with a space as in shells. */
  add(line: string): void {
    if (line.trim() === "" || line.startsWith(" ") || line.length > longest || line === this.lines.at(-1)) return;
    this.lines.push(line);
    const file = this.#file;
    if (file === undefined || this.problem !== undefined) return;
    this.#try(() => {
      // What somebody says to a model is nobody else's.
      mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
      appendFileSync(file, `${line}\n`, { mode: 0o600 });
    });
  }

  #try(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.problem = `the history is not kept: ${(error as Error).message}`;
    }
  }
}
