// Samples of a task that the shipped model does not know, for docs/tutorial-adapt.md: numbers to Roman numerals.
//   node examples/adapt/roman.mjs FOLDER
// roman.jsonl: 2,000 samples to learn from; roman-test.jsonl: 500 others, with their answers; old.jsonl: 2,000 samples of the
// tasks that the model was trained on, to mix in so that it keeps them. The files are the same each time.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Random } from "../../dist/bench/random.js";
import { taskSamples } from "../../dist/bench/tasks.js";

const [folder] = process.argv.slice(2);
if (!folder) {
  console.error("usage: node examples/adapt/roman.mjs FOLDER");
  process.exit(2);
}

const numerals = Object.entries({
  ...{ M: 1000, CM: 900, D: 500, CD: 400, C: 100, XC: 90 },
  ...{ L: 50, XL: 40, X: 10, IX: 9, V: 5, IV: 4, I: 1 },
});

function roman(number) {
  let [text, left] = ["", number];
  for (const [numeral, value] of numerals) for (; left >= value; left -= value) text += numeral;
  return text;
}

const chat = (prompt, answer) => ({
  messages: [
    { role: "user", content: prompt },
    { role: "assistant", content: answer },
  ],
});

function write(name, lines) {
  writeFileSync(join(folder, name), lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
}

mkdirSync(folder, { recursive: true });
const numbers = new Random(1).shuffled(Array.from({ length: 3999 }, (_, i) => i + 1));
const prompt = (number) => `Roman: ${number}`;
write(
  "roman.jsonl",
  numbers.slice(0, 2000).map((number) => chat(prompt(number), roman(number))),
);
write(
  "roman-test.jsonl",
  numbers.slice(2000, 2500).map((number) => ({ task: "roman", prompt: prompt(number), answer: roman(number) })),
);

const heldOut = new URL("../../test/golden/heldout.jsonl", import.meta.url);
const held = new Set(
  readFileSync(heldOut, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line).prompt),
);
const old = taskSamples(2, held);
write(
  "old.jsonl",
  Array.from({ length: 2000 }, () => old.next().value).map(({ prompt, answer }) => chat(prompt, answer)),
);
