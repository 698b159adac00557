// sdar generate --watch: the answer so far, with the block being denoised, redrawn in place.
import type { WriteStream } from "node:tty";
import type { Chunk, Draft } from "../types.js";
import { columnsOf, hasColour, printable } from "./terminal.js";

/** From the first step on: green over yellow to red, in the terminal's 256 colours. */
const stepColours = [46, 82, 118, 154, 190, 226, 220, 214, 208, 202, 196];
const dim = 2;

/** Text in one style: the step that filled it, or what stands for no token. */
interface Piece {
  text: string;
  step: number | "sign";
}

export class WatchView {
  readonly #out: WriteStream;
  readonly #endIds: ReadonlySet<number>;
  readonly #colour: boolean;
  readonly #drafts = new Map<number, Draft>();
  /** rows on the screen from the first one that is still redrawn, the cursor being in the last */
  #rows = 0;
  /** rows above, which are not redrawn any more */
  #frozen = 0;

  constructor(out: WriteStream, endIds: readonly number[]) {
    this.#out = out;
    this.#endIds = new Set(endIds);
    this.#colour = hasColour(out);
  }

  /** Draws what a chunk's draft has to show, a frame at each turn: a new block is first seen with all its masks. */
  *frames({ draft }: Chunk): Generator<void> {
    if (!draft) return;
    if (!this.#drafts.has(draft.block)) {
      const tokens = draft.tokens.map((token) => (token?.step === null ? token : null));
      this.#drafts.set(draft.block, { ...draft, tokens });
      yield this.#draw(this.#pieces());
    }
    this.#drafts.set(draft.block, draft);
    yield this.#draw(this.#pieces());
  }

  /** Draws the final text, and with colours a line that tells which is which. */
  end(text: string): void {
    let left = text.length;
    const pieces: Piece[] = [];
    for (const { text, step } of this.#pieces()) {
      if (step === "sign") continue;
      pieces.push({ text: text.slice(0, left), step });
      left = Math.max(0, left - text.length);
    }
    this.#draw(pieces);
    if (!this.#colour) return;
    const used = new Set(pieces.map(({ step }) => step as number));
    const legend = [...used].sort((a, b) => a - b).map((step) => this.#style({ text: String(step), step }));
    this.#out.write(`\n\x1b[${dim}mfilled at step\x1b[0m ${legend.join(" ")}`);
  }

  #pieces(): Piece[] {
    const pieces: Piece[] = [];
    for (const [, draft] of [...this.#drafts].sort(([a], [b]) => a - b)) {
      for (const token of draft.tokens) {
        if (!token) pieces.push({ text: "░", step: "sign" });
        else if (token.step === null)
          continue; // the prompt's
        else if (this.#endIds.has(token.id)) pieces.push({ text: "∎", step: "sign" });
        else pieces.push({ text: printable(token.text), step: token.step });
      }
    }
    return pieces;
  }

  #draw(pieces: Piece[]): void {
    const rows = this.#layOut(pieces);
    const up = this.#rows > 1 ? `\x1b[${this.#rows - 1}A` : "";
    const start = this.#rows > 0 ? `\r${up}\x1b[J` : "";
    this.#out.write(start + rows.slice(this.#frozen).join("\n"));
    // What has scrolled off the screen cannot be redrawn.
    this.#frozen = Math.max(this.#frozen, rows.length - Math.max(1, this.#out.rows - 1));
    this.#rows = Math.max(1, rows.length - this.#frozen);
  }

  /** Rows of at most the terminal's width, each with its styles closed. */
  #layOut(pieces: Piece[]): string[] {
    const width = this.#out.columns || 80;
    const rows = [""];
    let column = 0;
    for (const { text, step } of pieces) {
      let row = "";
      const close = () => {
        rows[rows.length - 1] += this.#style({ text: row, step });
        row = "";
      };
      for (const character of text.replaceAll("\t", "    ")) {
        if (character === "\n" || column + columnsOf(character) > width) {
          close();
          rows.push("");
          column = 0;
          if (character === "\n") continue;
        }
        row += character;
        column += columnsOf(character);
      }
      close();
    }
    return rows;
  }

  #style({ text, step }: Piece): string {
    if (!this.#colour || text === "") return text;
    const code = step === "sign" ? dim : `38;5;${stepColours[Math.min(step, stepColours.length - 1)]}`;
    return `\x1b[${code}m${text}\x1b[0m`;
  }
}
