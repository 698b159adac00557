// Lists of token ids and biases as callers pass them: read once, counted before they are copied.
import { types } from "node:util";
import { invalidOption, SdarError } from "./errors.js";
import { bounds } from "./limits.js";
import { reading } from "./schema.js";
import type { RequestFields } from "./types.js";

/** Whether it is an array, or a typed array of a kind that holds token ids and still has its memory. */
export function isTokenList(v: unknown): v is ArrayLike<number> {
  if (Array.isArray(v)) return true;
  if (!types.isInt32Array(v) && !types.isUint32Array(v) && !types.isUint16Array(v)) return false;
  try {
    // Throws for memory that was transferred away.
    return new Uint8Array(v.buffer) !== undefined;
  } catch {
    return false;
  }
}

/** Throws INVALID_OPTION and TOKEN_OUT_OF_RANGE. */
export const tokenIds = (ids: ArrayLike<number>, option: string, vocabSize: number, most: number): Int32Array =>
  reading(option, () => copyIds(ids, option, vocabSize, most));

function copyIds(ids: ArrayLike<number>, option: string, vocabSize: number, most: number): Int32Array {
  const { length } = ids;
  if (!(length <= most)) throw invalidOption(option, ids, `at most ${most} token ids`);
  const allowed = `an integer from 0 to ${vocabSize - 1}`;
  const copy = new Int32Array(length);
  for (let i = 0; i < length; i++) {
    const id = ids[i] as number;
    if (!Number.isSafeInteger(id)) throw invalidOption(`${option}[${i}]`, id, allowed);
    if (id < 0 || id >= vocabSize) {
      const message = `${option}[${i}]: ${id} is not a token of this model; give ${allowed}`;
      throw new SdarError("TOKEN_OUT_OF_RANGE", message, { option: `${option}[${i}]`, value: id, allowed });
    }
    copy[i] = id;
  }
  return copy;
}

const mapSize = Object.getOwnPropertyDescriptor(Map.prototype, "size")?.get as () => number;

/** Counts before it copies: what is refused costs little, however long it is. */
function biasEntries(bias: NonNullable<RequestFields["logitBias"]>): [unknown, unknown][] {
  const most = bounds.logitBias;
  const tooMany = () => invalidOption("logitBias", bias, `at most ${most} token ids`);
  if (types.isMap(bias)) {
    if (mapSize.call(bias) > most) throw tooMany();
    return [...Map.prototype.entries.call(bias)];
  }
  const entries: [unknown, unknown][] = [];
  for (const key in bias) {
    if (entries.length === most) throw tooMany();
    entries.push([key, (bias as Record<string, unknown>)[key]]);
  }
  return entries;
}

/** Pairs of id and value, ids ascending. */
export function parseBias(bias: NonNullable<RequestFields["logitBias"]>, vocabSize: number): [number, number][] {
  const entries = biasEntries(bias);
  const values = new Map<number, number>();
  for (const [key, value] of entries) {
    const id = typeof key === "string" && /^\d+$/.test(key) ? Number(key) : (key as number);
    tokenIds([id], "logitBias", vocabSize, 1);
    if (typeof value !== "number" || !(value >= -100 && value <= 100))
      throw invalidOption(`logitBias[${id}]`, value, "a number from -100 to 100");
    values.set(id, value);
  }
  return [...values].sort(([a], [b]) => a - b);
}

/** Refuses `ids` that, with `others`, leave no token to choose: for `stopTokens` at the positions before `minTokens`. */
export function checkSomeAllowed(
  option: "suppress" | "stopTokens",
  ids: Int32Array,
  others: readonly number[],
  model: { vocabSize: number; maskTokenId: number },
): void {
  const banned = new Set([...ids, ...others, model.maskTokenId]);
  banned.delete(-1); // a model without a mask
  if (banned.size < model.vocabSize) return;
  throw invalidOption(
    option,
    ids,
    `${option === "suppress" ? "" : "with minTokens, "}fewer than all tokens of the model`,
  );
}
