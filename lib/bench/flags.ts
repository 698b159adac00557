// Options that several commands take, as commander parses them.
import { InvalidArgumentError, Option } from "commander";
import { type Strategy, shortNames, strategyOf } from "../quality.js";

/** A whole number of at least `min`. */
export function whole(min: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < min) {
      throw new InvalidArgumentError(`Give a whole number >= ${min}.`);
    }
    return value;
  };
}

/** Positive whole numbers separated by commas. */
export const wholeList = (text: string): number[] => text.split(",").map(whole(1));

/** A number above 0. */
export function positive(text: string): number {
  const value = /^(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : 0;
  if (!(value > 0 && value < Number.POSITIVE_INFINITY)) {
    throw new InvalidArgumentError("Give a number above 0.");
  }
  return value;
}

/** One of some words. */
export function oneOf<T extends string>(...allowed: readonly T[]) {
  const parse = (text: string): T => {
    const found = allowed.find((word) => word === text);
    if (found === undefined) throw new InvalidArgumentError(`Give one of ${allowed.join(", ")}.`);
    return found;
  };
  // A shell's completions ask for them.
  return Object.assign(parse, { allowed });
}

export type StrategyName = (typeof shortNames)[Strategy];
export const strategyNames: readonly StrategyName[] = Object.values(shortNames);

/** A strategy by its short name, also where the whole one is given. */
export const strategyName = Object.assign(
  (text: string): StrategyName => {
    const strategy = strategyOf(text);
    return strategy ? shortNames[strategy] : oneOf(...strategyNames)(text);
  },
  { allowed: strategyNames },
);

/** Several of some words, separated by commas. */
export function someOf<T extends string>(...allowed: readonly T[]) {
  return Object.assign((text: string): T[] => text.split(",").map(oneOf(...allowed)), { allowed });
}

/** Pairs name=value separated by commas; a value is a number, true, false or a word. */
export function pairs(text: string): Record<string, number | boolean | string> {
  const all = text.split(",").map((pair) => /^(\w+)=([\w.+-]+)$/.exec(pair) ?? []);
  if (all.some(({ length }) => length === 0)) throw new InvalidArgumentError("Give name=value,….");
  const value = (word: string) => {
    if (word === "true" || word === "false") return word === "true";
    return Number.isNaN(Number(word)) ? word : Number(word);
  };
  return Object.fromEntries(all.map(([, name, word]) => [name, value(word as string)]));
}

/** Numbers above 0 separated by commas. */
export const positiveList = (text: string): number[] => text.split(",").map(positive);

/** A number of at least 0. */
export const notNegative = (text: string): number => (/^0+(\.0*)?$/.test(text) ? 0 : positive(text));

/** 0 for all of them. */
export const layersOption = (): Option =>
  new Option("--layers <n>", "layers of the shape to keep").argParser(whole(1)).default(0, "all");
