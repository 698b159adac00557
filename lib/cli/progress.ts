// A line on a terminal that tells how far something is, redrawn in place; nothing elsewhere.
import type { LoadOptions } from "../types.js";
import { isTerminal, sizeOf } from "./terminal.js";

/** What is over before a second has passed shows nothing. */
const patienceMs = 1000;
const redrawMs = 100;

export class ProgressLine {
  readonly #live: boolean;
  readonly #began = performance.now();
  #drawn = Number.NEGATIVE_INFINITY;
  #shown = false;

  /** On standard error, unless told not to. */
  constructor(on = true) {
    this.#live = on && isTerminal(process.stderr);
  }

  /** `text` is asked for a line only when one is drawn. */
  show(text: () => string): void {
    const now = performance.now();
    if (!this.#live || now - this.#began < patienceMs || now - this.#drawn < redrawMs) return;
    this.#drawn = now;
    this.#shown = true;
    // A row that wraps could not be redrawn.
    process.stderr.write(`\r${text().slice(0, (process.stderr.columns || 80) - 1)}\x1b[K`);
  }

  /** Before anything else is written. */
  clear(): void {
    if (this.#shown) process.stderr.write("\r\x1b[K");
    this.#shown = false;
    this.#drawn = Number.NEGATIVE_INFINITY;
  }
}

/** How far a load is. */
export const loadingText = (model: string, { done, total }: { done: number; total: number }): string =>
  `loading ${model}: ${Math.floor((100 * done) / (total || 1))} % of ${sizeOf(total)}`;

/** Options of Engine.load that show on a terminal how far it is; `clear` when it has ended. */
export function loadProgress(model: string): Pick<LoadOptions, "onProgress"> & { clear(): void } {
  const line = new ProgressLine();
  return {
    onProgress: (progress) => line.show(() => loadingText(model, progress)),
    clear: () => line.clear(),
  };
}
