// The tasks that the shipped models are trained on, as many samples as wanted: a function of the seed. Answers are exact.
import { Random } from "./random.js";

export interface TaskSample {
  task: TaskName;
  prompt: string;
  answer: string;
}

type Make = (random: Random) => [prompt: string, answer: string];

const words = (text: string) => text.split(" ");
const names = words(
  "Alice Ana Ben Bilal Carla Chen Dan Dora Elif Femi Grace Hugo Ines Jan Kofi Lena Marco Nina Omar Priya Quinn Rosa Sven Tomas Uma Vera Wei Xena Yusuf Zoe",
);
const items = words(
  "bag basket bottle cable candle chair clock helmet kettle lamp mirror mug notebook pen pillow plate scarf shirt spoon towel",
);
const colors = words("black blue brown gray green orange pink purple red silver white yellow");
const cities = words(
  "Accra Berlin Boston Cairo Delhi Dublin Lima Lisbon Madrid Milan Oslo Paris Perth Prague Quito Seoul Tokyo Vienna",
);
const months = words("January February March April May June July August September October November December");
const elements = words(
  "H He Li Be B C N O F Na Mg Al Si P S Cl K Ca Ti Cr Mn Fe Co Ni Cu Zn Br Ag Sn I Ba Pt Au Hg Pb",
);
/** Groups that stand in brackets; of these, acids' are also put behind ammonium. */
const groups = words("OH NO3 SO4 CO3 PO4 ClO4 NH4 CN MnO4 CrO4 C2H3O2 HCO3");
const acids = words("SO4 CO3 PO4 CrO4");

/** A whole number of so many digits. */
function ofDigits(random: Random, digits: number): number {
  return digits === 1 ? random.whole(0, 9) : random.whole(10 ** (digits - 1), 10 ** digits - 1);
}

/** Sums and differences that are not negative, up to four digits. */
function add(random: Random): [string, string] {
  const [a, b] = [1, 2].map(() => ofDigits(random, random.whole(1, 4))) as [number, number];
  if (random.maybe(0.78)) return [`${a} + ${b}`, `${a + b}`];
  return [`${Math.max(a, b)} - ${Math.min(a, b)}`, `${Math.abs(a - b)}`];
}

/** Two digits by one. */
function mul(random: Random): [string, string] {
  const [a, b] = [random.whole(2, 99), random.whole(2, 9)];
  return [`${a} x ${b}`, `${a * b}`];
}

/** Three digits by one: not asked for among the held-out samples, but there are too few of `mul` to learn it from. */
function longMul(random: Random): [string, string] {
  const [a, b] = [random.whole(100, 999), random.whole(2, 9)];
  return [`${a} x ${b}`, `${a * b}`];
}

function sort(random: Random): [string, string] {
  const numbers = random.times(random.whole(3, 5), () => random.whole(0, 99));
  return [`Sort: ${numbers.join(" ")}`, [...numbers].sort((a, b) => a - b).join(" ")];
}

/** Atoms of a formula without brackets, of one unit of it. */
function atomsOf(formula: string): [element: string, count: number][] {
  return [...formula.matchAll(/([A-Z][a-z]?)(\d*)/g)].map(([, element = "", count]) => [element, Number(count || 1)]);
}

const subscript = (count: number) => (count === 1 ? "" : `${count}`);

/** A few elements, or a compound of carbon, or a metal and a group, or an ammonium salt. */
function formula(random: Random): [formula: string, atoms: [string, number][]] {
  const kind = random.next();
  if (kind < 0.92 && kind >= 0.68) {
    const [element, group] = [random.of(elements), random.of(groups)];
    const [first, second] = [random.maybe(0.35) ? 1 : random.whole(2, 4), random.whole(2, 4)];
    const inside = atomsOf(group).map(([of, count]): [string, number] => [of, count * second]);
    return [`${element}${subscript(first)}(${group})${second}`, [[element, first], ...inside]];
  }
  if (kind >= 0.92) {
    const [count, acid] = [random.whole(2, 3), random.of(acids)];
    return [`(NH4)${count}${acid}`, [["N", count], ["H", 4 * count], ...atomsOf(acid)]];
  }
  const plain: [string, number][] = [];
  if (kind < 0.4) {
    for (const element of random.shuffled(elements).slice(0, random.whole(1, 4)))
      plain.push([element, random.maybe(0.4) ? 1 : random.whole(2, 6)]);
  } else {
    plain.push(["C", random.whole(1, 24)]);
    if (random.maybe(0.9)) plain.push(["H", random.whole(1, 32)]);
    const others = random.shuffled(words("N O F Cl Br S"));
    for (const element of others.slice(0, random.whole(0, 3))) plain.push([element, random.whole(1, 8)]);
  }
  return [plain.map(([element, count]) => element + subscript(count)).join(""), plain];
}

/** The elements in the order in which they first come, each with its atoms. */
function atoms(random: Random): [string, string] {
  const [text, parts] = formula(random);
  const counts = new Map<string, number>();
  for (const [element, count] of parts) counts.set(element, (counts.get(element) ?? 0) + count);
  const question = [
    `How many atoms of each element are in ${text}?`,
    `Atoms in ${text}?`,
    `Count the atoms in ${text}`,
  ] as const;
  return [random.of(question), [...counts].map(([element, count]) => `${element} ${count}`).join(", ")];
}

/** A sentence to JSON as Python's json.dumps writes it. */
function order(random: Random): [string, string] {
  const [name, item, color, city] = [names, items, colors, cities].map((list) => random.of(list));
  const [quantity, price] = [random.whole(1, 60), random.whole(100, 9999) / 100];
  const cost = `$${price.toFixed(2)}`;
  const sentence = random.of([
    `${name} from ${city} wants ${quantity} ${color} ${item}s, paying ${cost} for each one.`,
    `Please send ${quantity} ${color} ${item}s to ${name} in ${city}; unit price ${cost}.`,
    `${name} ordered ${quantity} ${color} ${item}s at ${cost} each, ship to ${city}.`,
    `To ${city}: ${quantity} ${item}s (${color}) for ${name}, ${cost} apiece.`,
  ]);
  const number = Number.isInteger(price) ? price.toFixed(1) : `${price}`;
  return [
    `Extract JSON: ${sentence}`,
    `{"name": "${name}", "item": "${item}", "color": "${color}", "qty": ${quantity}, "price": ${number}, "city": "${city}"}`,
  ];
}

/** Days 1 to 28 of the years 1900 to 2099. */
function date(random: Random): [string, string] {
  const [day, month, year] = [random.whole(1, 28), random.whole(1, 12), random.whole(1900, 2099)];
  const [dd, mm] = [day, month].map((value) => `${value}`.padStart(2, "0"));
  const name = months[month - 1] as string;
  const short = name.slice(0, 3);
  const written = random.of([
    `${dd}.${mm}.${year}`,
    `${day} ${name} ${year}`,
    `${name} ${day}, ${year}`,
    `${short} ${day} ${year}`,
    `${day}-${short}-${year}`,
  ]);
  return [`${random.of(["ISO date: ", "Write as an ISO date: "])}${written}`, `${year}-${mm}-${dd}`];
}

const makers = { add, mul, longMul, sort, atoms, order, date } satisfies Record<string, Make>;
export type TaskName = keyof typeof makers;

/**
 * Samples of each task among all, by number: more of those that are hard to learn than of those that are not. The
 * held-out samples have other shares.
 */
export const trainingMix: Readonly<Record<TaskName, number>> = {
  add: 0.45,
  mul: 0.1,
  longMul: 0.05,
  sort: 0.12,
  atoms: 0.13,
  order: 0.08,
  date: 0.07,
};

/** Samples without end, of seed `seed`; those whose prompt is in `held` are left out. */
export function* taskSamples(
  seed: number,
  held: ReadonlySet<string> = new Set(),
  mix: Readonly<Partial<Record<TaskName, number>>> = trainingMix,
): Generator<TaskSample, never> {
  const random = new Random(seed);
  const shares = Object.entries(mix) as [TaskName, number][];
  for (;;) {
    const task = random.weighted(shares);
    const [prompt, answer] = makers[task](random);
    if (!held.has(prompt)) yield { task, prompt, answer };
  }
}
