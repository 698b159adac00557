// What is known of a token, where the pointer or the focus is.
import { byId, make } from "./dom.js";

const tip = () => byId("tip");
let shown;

/** `cells`: from the token's element to what is known of it. */
export function tellTokens(container, cells) {
  const tokenOf = (event) => event.target.closest?.(".token:not([data-state=mask])");
  const tell = (event) => {
    const token = tokenOf(event);
    if (token && container.contains(token)) show(token, cells.get(token));
  };
  container.addEventListener("pointerover", tell);
  container.addEventListener("focusin", tell);
  container.addEventListener("pointerleave", hide);
  container.addEventListener("focusout", hide);
  container.addEventListener("keydown", (event) => move(event, container));
}

/** The container is one stop of the tab key; arrows go on inside. */
function move(event, container) {
  if (event.key === "Escape" && shown) {
    hide();
    event.stopPropagation();
    return;
  }
  const tokens = [...container.querySelectorAll(".token:not([data-state=mask])")];
  if (tokens.length === 0) return;
  const at = tokens.indexOf(document.activeElement);
  const next = {
    ArrowRight: Math.min(at + 1, tokens.length - 1),
    ArrowLeft: Math.max(at - 1, 0),
    Home: 0,
    End: tokens.length - 1,
  }[event.key];
  if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  tokens[next].focus();
}

function show(token, cell) {
  if (!cell || cell.step === undefined) return;
  if (shown && shown !== token) hide();
  shown = token;
  const { text, special, confidence, step, block, id, blocks } = cell;
  const named = special ? "end of the answer" : JSON.stringify(text);
  const rows = [
    ["confidence", confidence === undefined ? "not final yet" : `${(confidence * 100).toFixed(1)} %`],
    ...(blocks ? [["step", `${step + 1}`]] : []),
    [blocks ? "block" : "position", `${block}`],
    ["token id", `${id}`],
  ];
  const box = tip();
  box.replaceChildren(
    make("strong", {}, named),
    make("dl", {}, ...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
  );
  box.hidden = false;
  token.setAttribute("aria-describedby", "tip");
  const at = token.getBoundingClientRect();
  const { width, height } = box.getBoundingClientRect();
  const left = Math.min(
    Math.max(8, at.left + at.width / 2 - width / 2),
    document.documentElement.clientWidth - width - 8,
  );
  const above = at.top - height - 8;
  box.style.left = `${left}px`;
  box.style.top = `${above > 8 ? above : at.bottom + 8}px`;
}

export function hide() {
  shown?.removeAttribute("aria-describedby");
  shown = undefined;
  tip().hidden = true;
}
