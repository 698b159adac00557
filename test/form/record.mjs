// Writes regex.json: random patterns and texts, and what this Node's V8 says of them: node test/form/record.mjs
import { writeFileSync } from "node:fs";
import { join } from "node:path";

let seed = 20260101;
function draw(n) {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * n);
}
const one = (list) => list[draw(list.length)];

const characters = ["a", "b", "A", "1", "_", " ", "-", "é", "ß", "中", "😀", "\n", "\u2028", '"', "\\", "\t", "/", "\u0001"];
const literals = ["a", "b", "A", "1", "_", " ", "-", "é", "中", "😀", '"', "\\\\", "\\n", "\\/", "\\x41", "\\u00e9", "\\u{1f600}", "\\ud83d\\ude00"];
const classes = ["\\d", "\\D", "\\w", "\\W", "\\s", "\\S", ".", "\\p{L}", "\\P{L}", "\\p{Lu}", "\\p{General_Category=Decimal_Number}", "[]", "[^]"];
const members = ["a", "b", "A-Z", "0-9", "a-é", "\\d", "\\W", "\\s", "-", "\\-", "\\]", "\\p{Ll}", "😀-😂", "_", '"', "\\\\", "\\n", "\\b"];
const quantifiers = ["*", "+", "?", "{2}", "{1,}", "{0,2}", "{1,3}", "*?", "+?", "??", "{0,2}?"];

function atom(depth) {
  const kind = draw(10);
  if (kind < 4) return one(literals);
  if (kind < 6) return one(classes);
  if (kind < 7) return `[${one(["", "^"])}${Array.from({ length: 1 + draw(3) }, () => one(members)).join("")}]`;
  if (depth === 0) return one(literals);
  return `${one(["(", "(?:", "(?<n>"])}${pattern(depth - 1)})`;
}
function term(depth) {
  const kind = draw(14);
  if (kind === 0) return one(["^", "$", "\\b", "\\B"]);
  if (kind === 1 && depth > 0) return `${one(["(?=", "(?!"])}${pattern(depth - 1)})`;
  return atom(depth) + (draw(3) === 0 ? one(quantifiers) : "");
}
function pattern(depth) {
  const sequences = Array.from({ length: draw(4) === 0 ? 2 + draw(2) : 1 }, () =>
    Array.from({ length: draw(5) }, () => term(depth)).join(""),
  );
  return sequences.join("|");
}
const text = () => Array.from({ length: draw(7) }, () => (draw(2) ? one(characters.slice(0, 6)) : one(characters))).join("");

/** What no random pattern has often. */
const fixed = [
  "^$", "", "a|", "(a|ab)(c|bcd)?", "^(?:a|b)*$", "\\bfoo\\b", "a{0}", "(a{0}){3}", "(?:a*)*b", "(a+)+", "[^\\p{L}\\d]", "x{2,3}y?$",
  "(^a|b$)+", "^^a$$", "(?:$a|^b)", "\\Ba\\B", "\\b|a", "[\\s\\S]", "(?:\\b|_)+1", "^(?!\\.)(?!.*\\.\\.)[\\w.]+$", "^(?=.{1,3}$)(?!a)\\w+", "a(?=b|$)", "(?!$|a(?!b))[ab1]*", "^\\p{Lu}[\\p{Ll}']+(?: \\p{Lu}[\\p{Ll}']+)*$",
];
/** What is not supported, and what is no pattern: refused, each with what its message says. */
const refused = [
  ["(?=a)*", "assertion"], ["(?=a", "a ( without"], ["(?<=a)b", "lookbehind"], ["(?<!a)b", "lookbehind"], ["(a)\\1", "backreference"],
  ["(?<n>a)\\k<n>", "backreference"], ["(?i:a)", "modifiers"], ["\\p{Script=Greek}", "\\p{Script=Greek}"], ["a{", "a { that"], ["a**", "nothing to repeat"],
  ["*a", "nothing to repeat"], ["(a", "a ( without"], ["a)", "a ) without"], ["[a", "a [ without"], ["[b-a]", "out of order"], ["\\q", "the escape \\q"], ["a{2,1}", "out of order"],
  ["]", "a lone ]"], ["\\", "a \\ at the end"], ["\\u12", "hexadecimal"], ["^*", "assertion"],
];

const cases = [];
const sources = [...fixed];
while (sources.length < 400) {
  const source = pattern(2);
  const names = source.match(/\?<n>/g) ?? [];
  if (names.length > 1) continue;
  try {
    new RegExp(source, "u");
  } catch {
    continue;
  }
  sources.push(source);
}
for (const source of sources) {
  const whole = new RegExp(`^(?:${source})$`, "u");
  const search = new RegExp(source, "u");
  const texts = [...new Set(Array.from({ length: 24 }, text))];
  cases.push({
    pattern: source,
    texts,
    whole: texts.map((t) => (whole.test(t) ? "1" : "0")).join(""),
    search: texts.map((t) => (search.test(t) ? "1" : "0")).join(""),
  });
}
const lines = cases.map((entry) => JSON.stringify(entry));
writeFileSync(
  join(import.meta.dirname, "regex.json"),
  `{"cases":[\n${lines.join(",\n")}\n],"refused":${JSON.stringify(refused)}}\n`,
);
