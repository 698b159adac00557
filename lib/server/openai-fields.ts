// Fields that chat and text completions share, in OpenAI's words and vLLM's, as options of the engine.
import { z } from "zod";
import { bounds } from "../limits.js";
import { qualities, strategies } from "../quality.js";
import type { RequestFields } from "../types.js";
import { badField } from "./problem.js";
import type { Formats } from "./structured.js";

export const optional = <T extends z.ZodType>(schema: T) => schema.nullish();
const number = optional(z.number());
const whole = optional(z.int({ error: "give a whole number" }));
const flag = optional(z.boolean());

/** Options that only this engine has. Unlike elsewhere an unknown one is refused: nobody sends them by accident. */
export const sdarSchema = z
  .strictObject({
    strategy: optional(z.enum(strategies)).describe("how positions of a block are chosen for filling"),
    steps: whole.describe("most steps for a block"),
    threshold: number,
    entropyBound: number,
    factor: number,
    confidence: optional(z.enum(["model", "sampled"])),
    blockLength: whole.describe("positions denoised together, 1 to 64"),
    quality: optional(z.enum(qualities)).describe("a setting of the above, instead of them"),
    priority: whole.describe("-100 to 100, higher goes first among the requests of the same key"),
    deadline: whole.describe("milliseconds within which the answer must be there"),
    pin: flag.describe("keeps the prompt in the prefix cache while anything else can be evicted"),
    drafts: flag.describe("with stream: the active block after every step, as choices[].sdar.draft"),
    tokens: flag.describe(
      "gives each token's id, position, block, step, confidence and logprob as choices[].sdar.tokens",
    ),
    usage: flag.describe("gives forwards and the like as sdar.usage"),
  })
  .describe("options of the engine itself");
export type SdarFields = z.infer<typeof sdarSchema>;

/** At most as many as the engine takes: one that is wrong is enough to say so. */
const biases = z
  .custom<Record<string, number>>(
    (value) => {
      if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
      const numbers = Object.values(value);
      return numbers.length <= bounds.logitBias && numbers.every((each) => typeof each === "number");
    },
    { error: `give an object of at most ${bounds.logitBias} token ids with numbers` },
  )
  .meta({ description: "from token ids to what is added to their logits" });

export const sharedFields = {
  model: optional(z.string({ error: "give the name of a model" })).describe("may be left out where there is one"),
  stream: flag,
  stream_options: optional(z.object({ include_usage: flag })),
  n: whole,
  seed: whole,
  stop: optional(
    z.union([z.string(), z.array(z.string()).max(64, { error: "give at most 64" })], {
      error: "give a string or a list of strings",
    }),
  ),
  temperature: number.describe("0, the default, takes the most probable token"),
  top_p: number,
  presence_penalty: number,
  frequency_penalty: number,
  logit_bias: optional(biases),
  top_k: whole,
  min_p: number,
  repetition_penalty: number,
  min_tokens: whole,
  ignore_eos: flag,
  stop_token_ids: optional(z.array(z.int()).max(256, { error: "give at most 256" })),
  cache_salt: optional(z.string()).describe("prefixes are found again only by requests of the same salt"),
  sdar: optional(sdarSchema),
};
const sharedSchema = z.object(sharedFields);
export type SharedFields = z.infer<typeof sharedSchema>;

type SharedOptions = Omit<RequestFields, "prompt" | "messages" | "tokens" | "format">;

/** Without what is undefined or null. */
export function given<T extends object>(fields: T): { [Name in keyof T]: NonNullable<T[Name]> } {
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null);
  return Object.fromEntries(entries) as { [Name in keyof T]: NonNullable<T[Name]> };
}

/** The engine's options for these fields; what of it is wrong the engine says. */
export function sharedOptions(body: SharedFields): SharedOptions {
  const { strategy, steps, threshold, entropyBound, factor, confidence, ...sdar } = body.sdar ?? {};
  const denoise = given({ strategy, steps, threshold, entropyBound, factor, confidence });
  const cache = given({ salt: body.cache_salt, pin: sdar.pin });
  const options = {
    n: body.n,
    // vLLM takes any integer.
    seed: typeof body.seed === "number" && body.seed < 0 ? BigInt.asUintN(64, BigInt(body.seed)) : body.seed,
    stop: body.stop,
    temperature: body.temperature,
    topP: body.top_p,
    // vLLM's word for all of them.
    topK: body.top_k === -1 ? 0 : body.top_k,
    minP: body.min_p,
    presencePenalty: body.presence_penalty,
    frequencyPenalty: body.frequency_penalty,
    repetitionPenalty: body.repetition_penalty,
    logitBias: body.logit_bias as Record<number, number> | null | undefined,
    minTokens: body.min_tokens,
    ignoreEos: body.ignore_eos,
    stopTokens: body.stop_token_ids,
    denoise: Object.keys(denoise).length > 0 ? denoise : undefined,
    quality: sdar.quality,
    blockLength: sdar.blockLength,
    priority: sdar.priority,
    deadline: sdar.deadline,
    drafts: (body.stream && sdar.drafts) || undefined,
    cache: Object.keys(cache).length > 0 ? cache : undefined,
  };
  return given(options) as SharedOptions;
}

/** Fields that change what an answer is and that nothing here can do, and the values of them that ask for nothing. */
export type Unsupported = Readonly<Record<string, readonly unknown[]>>;

export const sharedUnsupported: Unsupported = {
  use_beam_search: [false],
  length_penalty: [1],
  best_of: [1],
  prompt_logprobs: [],
  allowed_token_ids: [],
  bad_words: [[]],
  truncate_prompt_tokens: [],
  include_stop_str_in_output: [false],
  skip_special_tokens: [true],
  return_token_ids: [false],
  return_tokens_as_token_ids: [false],
  logits_processors: [],
  mm_processor_kwargs: [],
  kv_transfer_params: [],
  // Lower goes first there: ours has the other sense.
  priority: [0],
};

/** Throws ApiError 400 with the field's name. */
export function refuseUnsupported(raw: Record<string, unknown>, unsupported: Unsupported): void {
  for (const [name, allowed] of Object.entries(unsupported)) {
    const value = Object.hasOwn(raw, name) ? raw[name] : undefined;
    if (value === undefined || value === null) continue;
    if (allowed.some((each) => JSON.stringify(each) === JSON.stringify(value))) continue;
    const instead = allowed.length > 0 ? ` but as ${JSON.stringify(allowed[0])}` : "";
    throw badField(name, `${name} is not supported${instead}`, "unsupported_parameter");
  }
}

const fieldOf: Record<string, string> = {
  stopTokens: "stop_token_ids",
  templateOptions: "chat_template_kwargs",
  tokens: "prompt",
  cache: "cache_salt",
  blockLength: "sdar.blockLength",
  quality: "sdar.quality",
  priority: "sdar.priority",
  deadline: "sdar.deadline",
  drafts: "sdar.drafts",
};

/** The field that became an option of the engine: `topP` is `top_p`, `denoise.steps` is `sdar.steps`. */
export function paramOf(option: string, own: Partial<Record<string, string>> = {}): string {
  const head = /^\w+/.exec(option)?.[0] ?? "";
  const rest = option.slice(head.length);
  if (head === "denoise") return `sdar${rest}`;
  // Of forms and schemas the place within is a path of its own.
  const field = own[head] ?? fieldOf[head] ?? snake(head);
  return head === "format" || rest.includes("#") ? field + rest : field + snake(rest);
}

const snake = (name: string) => name.replace(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** The form that the answer must have, and the field that said so. */
export function onlyFormat(
  formats: Formats,
): { format: NonNullable<RequestFields["format"]>; field: string } | undefined {
  const [first, second] = formats;
  if (second) throw badField(second.field, `${second.field}: not together with ${first?.field}`);
  return first;
}
