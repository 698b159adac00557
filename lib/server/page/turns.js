// Turns of the conversation: a prompt, and the answers to it beside each other.
import { AnswerView, momentsOf, packed } from "./answer.js";
import { Refusal, stream } from "./api.js";
import { announce, count, make } from "./dom.js";
import { Player } from "./player.js";
import { pace } from "./settings.js";

/** One answer with its head and what was measured. */
class LaneView {
  #stats = make("p", { class: "stats" });
  #error = make("p", { class: "error", role: "alert", hidden: true });
  #replaying;

  constructor({ label, blocks }) {
    this.label = label;
    this.answer = new AnswerView(label, blocks);
    this.buttons = make("span", { class: "lane-buttons", hidden: true });
    this.buttons.append(
      button("Copy", `Copy the answer of ${label}`, (event) => copy(this.answer.text, event.currentTarget)),
      button("Replay", `Replay the answer of ${label}`, () => this.replay()),
    );
    const head = make("div", { class: "lane-head" }, make("h3", {}, label), this.buttons);
    this.element = make("section", { class: "lane" }, head, this.answer.element, this.#error, this.#stats);
  }

  progress() {
    const { steps, tokens } = this.answer;
    this.#stats.textContent = `${unbroken(count(tokens.length, "token"))} · ${unbroken(count(steps, "forward"))}`;
  }

  /** What is known at the end. */
  end({ stats, error, cells }) {
    this.cells = cells;
    this.buttons.hidden = cells.length === 0;
    this.#error.hidden = error === undefined;
    this.#error.textContent = error ?? "";
    const { tokens, forwards, rate, finish } = stats ?? {};
    const parts = [
      tokens !== undefined && count(tokens, "token"),
      forwards !== undefined && count(forwards, "forward"),
      forwards > 0 && `${(tokens / forwards).toFixed(2)} tokens per forward`,
      rate !== undefined && `${speed(rate)} tok/s`,
      finish && ends[finish],
    ];
    this.#stats.textContent = parts.filter(Boolean).map(unbroken).join(" · ");
    this.#stats.hidden = parts.filter(Boolean).length === 0;
  }

  /** Shows again how it came about. */
  async replay() {
    this.#replaying?.stop();
    const { answer, cells } = this;
    answer.clear();
    const player = new Player(answer, () => Math.max(pace(), 120));
    this.#replaying = player;
    for (const moment of momentsOf(cells, answer.blocks)) player.push(moment);
    player.end();
    await player.done;
  }

  /** As it was kept. */
  restore({ cells, text, stats, error }) {
    for (const { draft, tokens, text } of momentsOf(cells, this.answer.blocks)) {
      if (draft) this.answer.draft(draft);
      else this.answer.final(tokens, text);
    }
    this.answer.text = text;
    this.end({ stats, error, cells });
  }
}

/** Lines break between what was measured, not within. */
const unbroken = (text) => text.replaceAll(" ", "\u00a0");
const ends = { length: "cut at max tokens", stopped: "stopped" };
export const speed = (rate) => (rate >= 100 ? Math.round(rate).toLocaleString("en") : rate.toFixed(1));

function button(text, label, onclick) {
  return make("button", { type: "button", class: "quiet", "aria-label": label, onclick }, text);
}

async function copy(text, from) {
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    said = "Not allowed";
  }
  const before = from.textContent;
  if (before === "Copied" || before === "Not allowed") return;
  from.textContent = said;
  announce(said);
  setTimeout(() => {
    from.textContent = before;
  }, 1500);
}

export class TurnView {
  constructor({ prompt, lanes }, mode) {
    this.lanes = lanes.map((lane) => new LaneView(lane));
    const asked = make(
      "div",
      { class: "asked" },
      make("h2", {}, mode === "chat" ? "You" : "Text"),
      make("p", {}, prompt),
    );
    const columns = make("div", { class: "lanes" }, ...this.lanes.map(({ element }) => element));
    this.verdict = make("div", { class: "verdict", hidden: true });
    this.element = make("article", { class: "turn" }, asked, columns, this.verdict);
    this.element.classList.toggle("beside", lanes.length > 1);
  }

  /** Whose answer came faster, once both are there. */
  compare(lanes) {
    if (lanes.length < 2 || lanes.some(({ stats }) => stats?.rate === undefined)) return;
    const rates = lanes.map(({ stats }) => stats.rate);
    const most = Math.max(...rates);
    const rows = lanes.map(({ label }, i) => {
      const bar = make("span", { class: "bar" });
      bar.style.width = `${(rates[i] / most) * 100}%`;
      return make(
        "div",
        {},
        make("dt", {}, label),
        make("dd", {}, make("span", { class: "track", "aria-hidden": "true" }, bar), `${speed(rates[i])} tok/s`),
      );
    });
    const times = rates[0] / rates[1];
    const told = times >= 1 ? `${times.toFixed(1)}× as fast as` : `${(1 / times).toFixed(1)}× slower than`;
    this.verdict.replaceChildren(
      make("p", {}, `${lanes[0].label} was ${told} ${lanes[1].label}.`),
      make("dl", {}, ...rows),
    );
    this.verdict.hidden = false;
  }
}

/** Asks for one answer and shows it as it comes; resolves with what is kept once it has come, and `shown` once it is seen. */
export function answer(view, { path, body, signal }) {
  const player = new Player(view.answer, pace, () => view.progress());
  const started = performance.now();
  const outcome = { finish: undefined, usage: undefined, error: undefined, last: started, tokens: 0 };
  const arrived = (async () => {
    try {
      for await (const event of stream(path, body, signal)) take(event, outcome, player);
    } catch (error) {
      if (!signal.aborted)
        outcome.error = error instanceof Refusal ? error : new Refusal(0, { message: error.message });
    }
    if (signal.aborted) player.stop();
    else player.end();
  })();
  signal.addEventListener("abort", () => player.stop(), { once: true });
  const shown = player.done.then(async () => {
    await arrived;
    const { usage, last, error, tokens } = outcome;
    const cells = packed(view.answer.tokens);
    const stopped = signal.aborted;
    const seconds = (last - started) / 1000;
    const stats = {
      tokens: stopped ? cells.length : (usage?.completionTokens ?? tokens),
      forwards: stopped ? view.answer.steps : usage?.forwards,
      // Of the answer as it came in, not as it was shown.
      ...(tokens > 0 && seconds > 0 && { rate: tokens / seconds }),
      finish: stopped ? "stopped" : outcome.finish,
    };
    const kept = {
      text: view.answer.text,
      cells,
      ...(tokens > 0 && { stats }),
      ...(error && { error: error.message }),
    };
    view.end(kept);
    return { ...kept, refusal: error };
  });
  return { arrived, shown };
}

function take({ choices: [choice] = [], sdar }, outcome, player) {
  if (sdar?.usage) outcome.usage = sdar.usage;
  if (!choice) return;
  const { draft, tokens = [] } = choice.sdar ?? {};
  const text = choice.delta?.content ?? choice.text ?? "";
  if (choice.finish_reason) outcome.finish = choice.finish_reason;
  if (draft) player.push({ draft });
  if (tokens.length === 0 && text === "") return;
  outcome.tokens += tokens.length;
  outcome.last = performance.now();
  player.push({ tokens, text });
}
