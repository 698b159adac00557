// What the browser keeps: the last turns of both modes and the settings, on this machine alone.

const name = `sdar-playground:${location.pathname}`;
const mostTurns = 50;

/** `{ chat, complete, settings }` */
function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(name) ?? "{}");
    const turns = (list) => (Array.isArray(list) ? list.filter(isTurn) : []);
    return { chat: turns(kept.chat), complete: turns(kept.complete), settings: Object(kept.settings) };
  } catch {
    return { chat: [], complete: [], settings: {} };
  }
}

/** An older version of this page may have written something else. */
const isTurn = (turn) =>
  typeof turn?.prompt === "string" &&
  Array.isArray(turn.lanes) &&
  turn.lanes.every(
    ({ label, text, cells }) => typeof label === "string" && typeof text === "string" && Array.isArray(cells),
  );

export const kept = read();

/** Writes all of it; what finds no room goes, the oldest first. */
export function keep() {
  for (const mode of ["chat", "complete"]) kept[mode] = kept[mode].slice(-mostTurns);
  for (;;) {
    try {
      localStorage.setItem(name, JSON.stringify(kept));
      return;
    } catch (error) {
      const longer = kept.chat.length >= kept.complete.length ? kept.chat : kept.complete;
      if (error.name !== "QuotaExceededError" || longer.length === 0) return;
      longer.splice(0, Math.ceil(longer.length / 2));
    }
  }
}
