import type { WriteStream } from "node:tty";
import t from "tap";
import { columnsOf, printable } from "../lib/cli/terminal.js";
import { WatchView } from "../lib/cli/watch.js";
import type { Draft } from "../lib/index.js";

const esc = "\u001b";
const styledText = new RegExp(`${esc}\\[([\\d;]+)m([^${esc}]+)`, "g");
const output = new RegExp(`${esc}\\[(?<up>\\d*)A|(?<erase>${esc}\\[J)|(?<style>${esc}\\[[\\d;]*m)|[\\s\\S]`, "gu");

/** A terminal that understands what WatchView writes: text, line breaks, returns, cursor up, erase below, colours. */
class Screen {
  rows: number;
  columns: number;
  lines = [""];
  /** colour codes seen, with the text they were used for */
  styled: [code: string, text: string][] = [];
  #row = 0;
  #column = 0;

  constructor(
    rows: number,
    columns: number,
    readonly colours = true,
  ) {
    this.rows = rows;
    this.columns = columns;
  }
  hasColors = () => this.colours;
  write(text: string): boolean {
    for (const [, code, styled] of text.matchAll(styledText)) this.styled.push([code as string, styled as string]);
    for (const { 0: token, groups = {} } of text.matchAll(output)) {
      if (groups.up) this.#row = Math.max(this.lines.length - this.rows, this.#row - Number(groups.up), 0);
      else if (groups.erase) {
        this.lines.length = this.#row + 1;
        this.lines[this.#row] = (this.lines[this.#row] as string).slice(0, this.#column);
      } else if (token === "\r") this.#column = 0;
      else if (token === "\n") {
        this.#row++;
        this.#column = 0;
        this.lines[this.#row] ??= "";
      } else if (!groups.style) {
        this.lines[this.#row] += token;
        this.#column += columnsOf(token);
        if (this.#column > this.columns) throw new Error("a row is too long");
      }
    }
    return true;
  }
}

const newView = (screen: Screen) => new WatchView(screen as unknown as WriteStream, [99]);

/** Text by position: "." is masked, "|" the end token; every filled position has the step. */
const draft = (block: number, text: string, step = 0, prompt = 0): Draft => ({
  block,
  step,
  position: block * text.length,
  tokens: [...text].map((c, i) =>
    c === "."
      ? null
      : c === "|"
        ? { id: 99, step: i < prompt ? null : step, text: "" }
        : { id: 1, step: i < prompt ? null : step, text: c },
  ),
});

/** The screen after each frame of a draft. */
function show(view: WatchView, screen: Screen, draft: Draft): string[] {
  const seen: string[] = [];
  for (const _ of view.frames({ answer: 0, text: "", tokens: [], draft })) seen.push(screen.lines.join("/"));
  return seen;
}

t.test("the block is redrawn in place and ends as the text", async (t) => {
  const screen = new Screen(24, 80, false);
  const view = newView(screen);
  t.same([...view.frames({ answer: 0, text: "x", tokens: [] })], []);
  t.same(show(view, screen, draft(1, "||a..", 0, 2)), ["░░░", "a░░"], "a new block is first seen with all its masks");
  t.same(screen.lines, ["a░░"], "without the prompt's part");
  t.same(show(view, screen, draft(1, "||a.c", 0, 2)), ["a░c"]);
  t.same(show(view, screen, draft(1, "||abc", 1, 2)), ["abc"]);
  t.same(show(view, screen, draft(2, "d\ne|.")), ["abc░░░░░", "abcd/e∎░"]);
  view.end("abcd\ne");
  t.same(screen.lines, ["abcd", "e"]);
  t.notOk(screen.styled.length, "no colours where there are none");
});

t.test("long text wraps at the width, and what has scrolled away is left alone", async (t) => {
  const screen = new Screen(4, 10, false);
  const view = newView(screen);
  let text = "";
  for (let block = 0; block < 12; block++) {
    show(view, screen, draft(block, "......"));
    show(view, screen, draft(block, "a日b..."));
    show(view, screen, draft(block, "a日b日cd"));
    text += "a日b日cd";
  }
  view.end(text);
  t.equal(screen.lines.join(""), text);
  t.ok(screen.lines.every((line) => [...line].reduce((n, c) => n + columnsOf(c), 0) <= 10));
});

t.test("colours tell the step", async (t) => {
  delete process.env.NO_COLOR;
  const screen = new Screen(24, 80);
  const view = newView(screen);
  show(view, screen, draft(0, "a..", 0));
  const tokens = [..."abc"].map((text, i) => ({ id: 1, step: [0, 1, 40][i] as number, text }));
  show(view, screen, { ...draft(0, "abc", 1), tokens });
  view.end("abc");
  const colourOf = (wanted: string) => screen.styled.findLast(([, text]) => text === wanted)?.[0];
  t.not(colourOf("a"), colourOf("b"));
  t.match([colourOf("a"), colourOf("c"), colourOf("░")], [/^38;5;\d+$/, /^38;5;\d+$/, "2"]);
  t.same(screen.lines, ["abc", "filled at step 0 1 40"]);
  t.same(colourOf("40"), colourOf("c"), "the legend uses the same ones");
});

t.test("text cut by a stop string is cut on the screen", async (t) => {
  const screen = new Screen(24, 80, false);
  const view = newView(screen);
  show(view, screen, draft(0, "abcdef"));
  view.end("abc");
  t.same(screen.lines, ["abc"]);
});

t.test("a model cannot send control characters to the terminal", async (t) => {
  t.equal(printable("a\x1b[2Jb\tc\nd\r\x07\x9b"), "a\ufffd[2Jb\tc\nd\ufffd\ufffd\ufffd");
  t.same(["a", "日", "🎉", "\u0301", "\u200b"].map(columnsOf), [1, 2, 2, 0, 0]);
});
