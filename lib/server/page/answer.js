// One answer on the page: masks, tokens that fill them, and what is known of each.
import { make } from "./dom.js";
import { tellTokens } from "./tip.js";

const broken = "\ufffd";

/** Of a chunk, the texts that are not known or hold parts of characters: what the known ones leave of what the chunk says. */
function mendTexts(cells, text) {
  if (!cells.some((cell) => cell.text.includes(broken))) return;
  let at = 0;
  let gap = [];
  const fill = (to) => {
    for (const [i, cell] of gap.entries()) cell.text = i === 0 ? text.slice(at, to) : "";
    gap = [];
  };
  for (const cell of cells) {
    const found = cell.text.includes(broken) ? -1 : text.indexOf(cell.text, at);
    if (found < 0 || (gap.length === 0 && found > at)) gap.push(cell);
    else {
      fill(found);
      at = found + cell.text.length;
    }
  }
  fill(text.length);
}

export class AnswerView {
  /** by position */
  #cells = new Map();
  #spans = new Map();
  #known = new Map();
  /** what became final */
  text = "";
  /** denoising steps, or forwards, that were shown */
  steps = 0;

  /** `blocks`: whether the model denoises blocks. */
  constructor(label, blocks) {
    this.blocks = blocks;
    this.element = make("div", {
      class: "answer",
      role: "group",
      tabindex: "0",
      "aria-label": `Answer of ${label}. Arrow keys go from token to token.`,
    });
    tellTokens(this.element, this.#known);
  }

  get tokens() {
    return [...this.#cells.values()].filter(({ confidence }) => confidence !== undefined);
  }

  clear() {
    this.#cells.clear();
    this.#spans.clear();
    this.#known.clear();
    this.element.replaceChildren();
    this.text = "";
    this.steps = 0;
  }

  /** A block before its first step: masks where the prompt leaves room. */
  mask({ position, block, tokens }) {
    tokens.forEach((token, i) => {
      if (token?.step === null || this.#cells.has(position + i)) return;
      this.#draw(position + i, { text: "", block, blocks: true });
    });
  }

  /** A block after a step. */
  draft({ position, block, tokens }) {
    this.steps++;
    for (const [i, token] of tokens.entries()) {
      if (token?.step === null) continue;
      const at = position + i;
      const final = this.#cells.get(at)?.confidence !== undefined;
      if (final && token) this.#learn(at, token);
      if (final) continue;
      if (!token) this.#draw(at, { text: "", block, blocks: true });
      else this.#draw(at, { ...token, block, special: token.text === "", blocks: true });
    }
  }

  /** Tokens that became final, and the text that came with them. */
  final(tokens, text) {
    this.text += text;
    if (!this.blocks) this.steps++;
    const cells = tokens.map(({ id, position, block, step, confidence }) => {
      const before = this.#cells.get(position);
      // What no draft has shown yet: the chunk's text is known, not which part of it is whose.
      const guessed = before?.id !== id;
      const own = guessed ? broken : before.text;
      const special = before?.special ?? false;
      return { id, position, block, step, confidence, text: own, special, guessed, blocks: this.blocks };
    });
    mendTexts(cells, text);
    for (const cell of cells) this.#draw(cell.position, cell);
  }

  /** The text of a token that became final before any draft had it; what it leaves is the next ones'. */
  #learn(at, { id, text }) {
    const [cell, next] = [this.#cells.get(at), this.#cells.get(at + 1)];
    if (!cell.guessed || cell.id !== id || !cell.text.startsWith(text)) return;
    const rest = cell.text.slice(text.length);
    const takes = next?.guessed && next.text === "";
    if (rest !== "" && !takes) return; // nothing of the text may be lost
    if (takes) this.#draw(at + 1, { ...next, text: rest });
    this.#draw(at, { ...cell, text, special: text === "", guessed: false });
  }

  /** Nothing more comes: what is not final goes. */
  settle() {
    for (const [position, cell] of this.#cells) {
      if (cell.confidence !== undefined) continue;
      this.#spans.get(position).remove();
      this.#spans.delete(position);
      this.#cells.delete(position);
    }
    this.element.removeAttribute("aria-busy");
  }

  #draw(position, cell) {
    const { text, special, confidence, step } = cell;
    let span = this.#spans.get(position);
    if (!span) {
      span = make("span", { class: "token" });
      this.#spans.set(position, span);
      this.element.append(span);
    }
    this.#cells.set(position, cell);
    this.#known.set(span, cell);
    const state = step === undefined ? "mask" : confidence === undefined ? "draft" : "final";
    span.dataset.state = state;
    span.textContent = special ? "∎" : text;
    span.classList.toggle("end", special === true);
    if (state === "mask") {
      span.setAttribute("aria-hidden", "true");
      span.removeAttribute("tabindex");
      return;
    }
    if (special) span.setAttribute("aria-hidden", "true");
    else span.removeAttribute("aria-hidden");
    if (special || text === "") span.removeAttribute("tabindex");
    else span.tabIndex = -1;
    // Most tokens are nearly sure: without the root all of them would look alike.
    if (confidence !== undefined) span.style.setProperty("--unsure", (Math.max(0, 1 - confidence) ** 0.6).toFixed(3));
    span.style.setProperty("--step", Math.min(1, step / 7).toFixed(3));
  }
}

/** What is kept of an answer's tokens. */
export const packed = (cells) =>
  cells.map(({ text, step, confidence, block, id, position, special }) => [
    text,
    step,
    Math.round(confidence * 1e4) / 1e4,
    block,
    id,
    position,
    special ? 1 : 0,
  ]);

const unpacked = ([text, step, confidence, block, id, position, special]) => ({
  text: String(text),
  step,
  confidence,
  block,
  id,
  position,
  special: special === 1,
});

/** The moments of an answer, from what is kept of it: a block's masks, its steps, its final tokens. */
export function momentsOf(cells, blocks) {
  const byBlock = Map.groupBy(cells.map(unpacked), ({ block }) => block);
  return [...byBlock].flatMap(([block, tokens]) => {
    const text = tokens.map((token) => (token.special ? "" : token.text)).join("");
    if (!blocks) return [{ tokens, text }];
    const [{ position }] = tokens;
    const length = tokens[tokens.length - 1].position - position + 1;
    const at = (step) =>
      Array.from({ length }, (_, i) => {
        const token = tokens.find((each) => each.position === position + i);
        return token && token.step <= step ? { ...token, text: token.special ? "" : token.text } : null;
      });
    const steps = [...new Set(tokens.map(({ step }) => step))].sort((a, b) => a - b);
    const drafts = steps.map((step) => ({ draft: { block, position, tokens: at(step) } }));
    return [...drafts, { tokens, text }];
  });
}
