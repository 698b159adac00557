// The playground: asks the server, shows how answers come about, keeps them.
import { isLoading, listModels, setApiKey } from "./api.js";
import { announce, byId, count, make } from "./dom.js";
import { keep, kept } from "./history.js";
import {
  cardOf,
  chosenLanes,
  isBlocks,
  isSmall,
  requestOf,
  sendsContext,
  setModels,
  startSettings,
  wrongField,
} from "./settings.js";
import { hide } from "./tip.js";
import { answer, speed, TurnView } from "./turns.js";

const prompt = byId("prompt");
const modes = [...document.querySelectorAll("input[name=mode]")];
const mode = () => modes.find(({ checked }) => checked).value;
let running;
/** What was cleared last, until something else is written. */
let cleared;

function problem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = text === "";
}

/** Shows what is kept of a mode, or what to begin with. */
function showTurns() {
  hide();
  const turns = kept[mode()];
  const views = turns.map((turn) => {
    const view = new TurnView(turn, mode());
    for (const [i, lane] of view.lanes.entries()) lane.restore(turn.lanes[i]);
    view.compare(turn.lanes);
    return view.element;
  });
  byId("turns").replaceChildren(...views);
  refresh();
  if (views.length > 0) views[views.length - 1].scrollIntoView({ block: "end" });
}

const examples = {
  small: {
    chat: [
      "Count the atoms in Ca3(PO4)2",
      "Sort: 6 60 96 72",
      "ISO date: Jun 15 1972",
      "Extract JSON: Chen from Cairo wants 42 orange bottles, paying $23.71 for each one.",
    ],
    complete: ["<|im_start|>user\nSort: 6 60 96 72<|im_end|>\n<|im_start|>assistant\n"],
  },
  other: {
    chat: ["Explain block diffusion in three sentences.", "Write a haiku about the sea.", "Name five prime numbers."],
    complete: ["The three laws of thermodynamics are", "def fibonacci(n):"],
  },
};

/** What depends on the mode, the model and what is there. */
function refresh() {
  const { model } = chosenLanes()[0];
  const card = cardOf(model);
  const empty = byId("turns").childElementCount === 0;
  byId("empty").hidden = !empty;
  byId("clear").hidden = running !== undefined || (empty && !cleared);
  byId("legend").hidden = empty;
  byId("clear").textContent = cleared && empty ? "Undo" : "Clear history";
  byId("prompt-label").textContent = mode() === "chat" ? "Message" : "Text to go on with";
  byId("send-text").textContent = mode() === "chat" ? "Send" : "Complete";
  byId("context-row").hidden = mode() !== "chat";
  byId("send").hidden = running !== undefined;
  byId("stop").hidden = running === undefined;
  byId("send").disabled = !card;
  if (card) {
    const { device, weights, parameters, blockLength } = card.sdar;
    const size = parameters >= 1e9 ? `${(parameters / 1e9).toFixed(1)} B` : `${(parameters / 1e6).toFixed(1)} M`;
    const kind = isBlocks(model) ? `blocks of ${blockLength}` : "one token per forward";
    byId("served").textContent = `${model} · ${size} parameters · ${weights} on ${device} · ${kind}`;
  }
  const list = examples[isSmall(model) ? "small" : "other"][mode()];
  const use = (text) => {
    prompt.value = text;
    prompt.focus();
  };
  byId("examples").replaceChildren(
    ...list.map((text) => make("li", {}, make("button", { type: "button", onclick: () => use(text) }, text))),
  );
}

/** What lane `i` is sent: its own earlier answers, the first lane's where it has none. */
function inputOf(text, i) {
  if (mode() === "complete") return { prompt: text };
  const before = sendsContext() ? kept.chat.filter(({ lanes }) => (lanes[i] ?? lanes[0]).text !== "") : [];
  const earlier = before.flatMap(({ prompt, lanes }) => [
    { role: "user", content: prompt },
    { role: "assistant", content: (lanes[i] ?? lanes[0]).text },
  ]);
  return { messages: [...earlier, { role: "user", content: text }] };
}

async function send() {
  const text = prompt.value.trimEnd() === "" ? "" : mode() === "chat" ? prompt.value.trimEnd() : prompt.value;
  if (running || byId("send").disabled) return;
  if (text === "") return prompt.focus();
  const wrong = wrongField();
  if (wrong) {
    openSettings(true);
    wrong.focus();
    if (wrong.name !== "schema") wrong.reportValidity();
    return;
  }
  problem("");
  running = new AbortController();
  cleared = undefined;
  const asked = mode();
  const { signal } = running;
  const lanes = chosenLanes();
  const turn = { prompt: text, lanes: lanes.map((lane) => ({ ...lane, text: "", cells: [] })) };
  const view = new TurnView(turn, asked);
  byId("turns").append(view.element);
  prompt.value = "";
  refresh();
  byId("stop").focus({ preventScroll: true });
  follow();
  announce("The model answers.");
  const path = asked === "chat" ? "v1/chat/completions" : "v1/completions";
  const shown = [];
  // One after the other, that neither slows the other down; they are shown side by side.
  for (const [i, lane] of lanes.entries()) {
    if (signal.aborted) break;
    const body = { ...inputOf(text, i), ...requestOf(lane, i) };
    const { arrived, shown: seen } = answer(view.lanes[i], { path, body, signal });
    shown.push(seen);
    await arrived;
  }
  const outcomes = await Promise.all(shown);
  running = undefined;
  for (const [i, lane] of turn.lanes.entries()) {
    const { refusal: _, ...outcome } = outcomes[i] ?? { text: "", cells: [] };
    Object.assign(lane, outcome);
  }
  finish(asked, turn, view, outcomes, text);
}

function finish(asked, turn, view, outcomes, text) {
  const refusal = outcomes.find(({ refusal }) => refusal)?.refusal;
  const held = document.activeElement === byId("stop") || document.activeElement === document.body;
  if (refusal && turn.lanes.every(({ text }) => text === "")) {
    // Nothing to keep: the prompt goes back to where it can be sent again.
    view.element.remove();
    if (prompt.value === "") prompt.value = text;
    tellRefusal(refusal);
  } else {
    view.compare(turn.lanes);
    kept[asked].push(turn);
    keep();
    announce(summary(turn));
  }
  refresh();
  follow();
  if (held && !byId("key-form").contains(document.activeElement)) prompt.focus({ preventScroll: true });
}

/** What a screen reader says of a turn that is over: once, and no more of the text than one can listen to. */
function summary({ lanes }) {
  return lanes
    .map(({ label, text, stats }) => {
      const how = stats?.finish === "stopped" ? "Stopped" : "Done";
      const rate = stats?.rate === undefined ? "" : `, ${speed(stats.rate)} tokens per second`;
      const measured = stats ? `${count(stats.tokens, "token")}${rate}` : "";
      return `${how}: ${label}, ${measured}. ${text.length > 400 ? `${text.slice(0, 400)}…` : text}`;
    })
    .join(" ");
}

function tellRefusal(refusal) {
  if (refusal.status === 401) return askForKey(refusal);
  const hint =
    refusal.code === "context_length_exceeded" && kept.chat.length > 0 ? " Clear the history, or send less." : "";
  problem(`${refusal.message}${/[.!?…]$/.test(refusal.message) ? "" : "."}${hint}`);
}

function askForKey({ code }) {
  const form = byId("key-form");
  byId("key-problem").textContent = code === "invalid_api_key" ? "The server does not know this key." : "";
  form.hidden = false;
  byId("key").focus();
}

/** Stays at the end of the page while answers grow, unless who reads has scrolled away. */
function follow() {
  const page = document.scrollingElement;
  page.scrollTop = page.scrollHeight;
}

function openSettings(open) {
  byId("settings-toggle").setAttribute("aria-expanded", String(open));
  byId("settings").classList.toggle("open", open);
}

/** Until there are models: waits for those being loaded, asks for a key where the server wants one. */
async function connect() {
  try {
    const models = await listModels();
    setModels(models);
    byId("key-form").hidden = true;
    problem("");
    showTurns();
    if (models.length === 0 || (await isLoading())) {
      if (models.length === 0) byId("served").textContent = "The model is being loaded…";
      setTimeout(connect, 1000);
    }
  } catch (refusal) {
    byId("served").textContent = refusal.status === 401 ? "The server wants an API key." : "Not connected.";
    tellRefusal(refusal);
    if (refusal.status !== 401) setTimeout(connect, 3000);
  }
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
const stop = () => running?.abort();
byId("stop").addEventListener("click", stop);
document.addEventListener("keydown", ({ key }) => key === "Escape" && stop());
byId("clear").addEventListener("click", () => {
  const asked = mode();
  if (running) return;
  const back = cleared;
  cleared = back ? undefined : { [asked]: kept[asked] };
  kept[asked] = back?.[asked] ?? [];
  keep();
  showTurns();
  announce(back ? "The history is back." : "The history is cleared.");
  prompt.focus({ preventScroll: true });
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setApiKey(byId("key").value.trim());
  connect();
  prompt.focus();
});
byId("settings-toggle").addEventListener("click", ({ currentTarget }) =>
  openSettings(currentTarget.getAttribute("aria-expanded") !== "true"),
);
for (const each of modes)
  each.addEventListener("change", () => {
    cleared = undefined;
    kept.settings.mode = mode();
    keep();
    showTurns();
  });
for (const each of modes) if (each.value === kept.settings.mode) each.checked = true;
// The page grows while an answer does.
let atEnd = true;
addEventListener("scroll", () => {
  const page = document.scrollingElement;
  atEnd = page.scrollHeight - page.scrollTop - page.clientHeight < 80;
  hide();
});
new ResizeObserver(() => running && atEnd && follow()).observe(byId("turns"));

startSettings(refresh);
connect();
