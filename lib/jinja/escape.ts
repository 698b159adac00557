// The filters that escape text for HTML and for URLs.
import { str } from "./text.js";
import { Dict, fail, isIterable, iterate, Markup, type Value } from "./values.js";

export function escapeHtml(value: Value): Value {
  if (value instanceof Markup) return value;
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;" };
  return new Markup(str(value).replace(/[&<>'"]/g, (character) => entities[character] as string));
}

function quoteUrl(value: Value, inQuery: boolean): string {
  const quoted = encodeURIComponent(str(value)).replace(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return inQuery ? quoted.replaceAll("%20", "+") : quoted.replaceAll("%2F", "/");
}

export function urlencode(value: Value): Value {
  if (typeof value === "string" || !isIterable(value)) return quoteUrl(value, false);
  const pairs = value instanceof Dict ? [...value.entries()] : Array.from(iterate(value), (pair) => [...iterate(pair)]);
  return pairs
    .map((pair) =>
      pair.length === 2 ? pair.map((one) => quoteUrl(one as Value, true)).join("=") : fail("urlencode needs pairs"),
    )
    .join("&");
}
