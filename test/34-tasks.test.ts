// The samples that the shipped models learn from.
import { readFileSync } from "node:fs";
import t from "tap";
import { type TaskSample, taskSamples } from "../lib/bench/tasks.js";

const heldOut: TaskSample[] = readFileSync("test/golden/heldout.jsonl", "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line));
const held = new Set(heldOut.map(({ prompt }) => prompt));

function take(count: number, seed = 1): TaskSample[] {
  const samples = taskSamples(seed, held);
  return Array.from({ length: count }, () => samples.next().value);
}

/** Atoms of a formula, found by writing its brackets out. */
function countAtoms(formula: string): string {
  const flat = formula.replace(/\(([^)]*)\)(\d+)/g, (_, group: string, times: string) => group.repeat(Number(times)));
  const counts = new Map<string, number>();
  for (const [, element = "", digits] of flat.matchAll(/([A-Z][a-z]?)(\d*)/g))
    counts.set(element, (counts.get(element) ?? 0) + (digits ? Number(digits) : 1));
  return [...counts].map(([element, count]) => `${element} ${count}`).join(", ");
}

/** Undefined where a prompt is none of the task's. */
const answers: Record<TaskSample["task"], (prompt: string) => string | undefined> = {
  add(prompt) {
    const [, a, sign, b] = prompt.match(/^(\d{1,4}) ([+-]) (\d{1,4})$/) ?? [];
    return a && b && `${BigInt(a) + BigInt(sign + b)}`;
  },
  mul(prompt) {
    const [, a, b] = prompt.match(/^(\d{1,2}) x (\d)$/) ?? [];
    return a && b && `${BigInt(a) * BigInt(b)}`;
  },
  longMul(prompt) {
    const [, a, b] = prompt.match(/^(\d{3}) x (\d)$/) ?? [];
    return a && b && `${BigInt(a) * BigInt(b)}`;
  },
  sort: (prompt) =>
    prompt
      .match(/^Sort:((?: \d{1,2}){3,5})$/)?.[1]
      ?.trim()
      .split(" ")
      .sort((a, b) => Number(a) - Number(b))
      .join(" "),
  atoms(prompt) {
    const formula = prompt.match(/^(?:Atoms in |How many .* are in |Count the atoms in )([A-Za-z0-9()]+)\??$/)?.[1];
    return formula && countAtoms(formula);
  },
  order(prompt) {
    const find = (pattern: RegExp) => prompt.match(pattern)?.slice(1).find(Boolean);
    const color = find(/(black|blue|brown|gray|green|orange|pink|purple|(?<![a-z])red|silver|white|yellow)/);
    const item = find(/ ([a-z]+)s(?: at| to| \(|,)/);
    const city = find(/from (\w+) wants|to (\w+)\.$|in (\w+);|To (\w+):/);
    const name = find(/JSON: (\w+) (?:from|ordered)|to (\w+) in|for (\w+),/);
    const [quantity, price] = [find(/ (\d+) [a-z]/), Number(find(/\$(\d+\.\d\d)/))];
    const number = price % 1 === 0 ? `${price}.0` : `${price}`;
    return `{"name": "${name}", "item": "${item}", "color": "${color}", "qty": ${quantity}, "price": ${number}, "city": "${city}"}`;
  },
  date(prompt) {
    const text = prompt
      .match(/^(?:Write as an )?ISO date: (.*)$/i)?.[1]
      ?.replace(/^(\d\d)\.(\d\d)\.(\d{4})$/, "$3-$2-$1");
    return text && new Date(`${text} UTC`).toISOString().slice(0, 10);
  },
};

t.test("answers are right, by another way of finding them", (t) => {
  const samples = [...take(5000), ...heldOut];
  for (const { task, prompt, answer } of samples)
    if (answers[task](prompt) !== answer) t.fail(`${task}: ${prompt}: ${answer}, not ${answers[task](prompt)}`);
  t.same(new Set(samples.map(({ task }) => task)), new Set(Object.keys(answers)));
  t.end();
});

t.test("a seed gives the same samples, another others, and none is held out", (t) => {
  t.same(take(50), take(50));
  t.notSame(take(50), take(50, 2));
  t.notOk(take(20000).some(({ prompt }) => held.has(prompt)));
  t.end();
});

t.test("every wording and every size of the held-out samples comes", (t) => {
  const shape = ({ task, prompt }: TaskSample) => {
    const text = task === "atoms" ? prompt.replace(/in [A-Za-z0-9()]+/, "in F") : prompt.replace(/\$\d+/, "$1");
    const numbers = task === "add" ? text.replace(/\d/g, "1") : text.replace(/\d+/g, "1");
    return task === "order" || task === "date" ? numbers.replace(/\b(?!JSON|ISO)[A-Z][a-z]+\b/g, "N") : numbers;
  };
  const words = (text: string) =>
    text.includes("JSON: ")
      ? text.replace(/ [a-z]+ [a-z]+s (?=at|to)|[a-z]+s \([a-z]+\)| [a-z]+ [a-z]+s,/, " x ")
      : text;
  const made = new Set(take(20000).map((sample) => words(shape(sample))));
  const missing = new Set(heldOut.map((sample) => words(shape(sample))).filter((one) => !made.has(one)));
  t.same([...missing], []);
  t.end();
});
