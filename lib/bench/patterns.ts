// Regular expressions of a file, which may be anybody's: one that would take for ever is stopped.
import { createContext, runInContext } from "node:vm";
import { SdarError } from "../errors.js";

const mostCharacters = 2 ** 16;
const compileMs = 10_000;

/** Whether a text has a match of it somewhere, told in bounded time. */
export class Pattern {
  readonly #limitMs: number;
  readonly #context = createContext(Object.create(null));
  readonly #where: string;
  #stopped = false;

  /** JavaScript's syntax, with flag `u`. Throws DATA_INVALID, naming `where` it is from. */
  constructor(source: string, where: string, limitMs = 1000) {
    this.#where = where;
    this.#limitMs = limitMs;
    if (source.length > mostCharacters) {
      throw new SdarError("DATA_INVALID", `${where}: the pattern has more than ${mostCharacters} characters`);
    }
    this.#context.source = source;
    try {
      this.#run('pattern = new RegExp(source, "u")', compileMs);
    } catch (cause) {
      throw new SdarError("DATA_INVALID", `${where}: ${(cause as Error).message}`, { cause });
    }
  }

  /** What took too long once takes too long again: it is not tried any more. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Throws DATA_INVALID when it takes longer than the limit. */
  test(text: string): boolean {
    if (!this.#stopped) {
      this.#context.text = text;
      try {
        return this.#run("pattern.test(text)", this.#limitMs) === true;
      } catch {
        this.#stopped = true;
      }
    }
    const why = `the pattern takes more than ${this.#limitMs} ms on an answer`;
    throw new SdarError("DATA_INVALID", `${this.#where}: ${why}; give one that does not backtrack as much`);
  }

  #run(code: string, timeout: number): unknown {
    return runInContext(code, this.#context, { timeout });
  }
}
