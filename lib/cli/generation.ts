// What the commands that generate have in common: flags of answers and of the model, and the options that they mean.
import { type Command, InvalidArgumentError } from "commander";
import { weightFormats } from "../binding.js";
import { shippedModel } from "../checkpoint.js";
import { defined } from "../defined.js";
import { qualities, shortNames, strategyOf } from "../quality.js";
import type { GenerateDefaults, LoadOptions, Quality, Strategy } from "../types.js";

export interface ModelFlags {
  model: string;
  device?: LoadOptions["device"];
  weights?: LoadOptions["weights"];
  threads?: number;
}

export interface AnswerFlags {
  strategy?: Strategy;
  steps?: number;
  threshold?: number;
  entropyBound?: number;
  factor?: number;
  quality?: Quality;
  blockLength?: number;
  maxTokens?: number;
  ignoreEos?: boolean;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  seed?: number | bigint;
  stop?: string[];
}

export function withAnswerFlags(command: Command): Command {
  return command
    .optionsGroup("Length:")
    .option("-n, --max-tokens <n>", "most tokens to generate (default: the rest of the context)", whole)
    .option("--stop <text>", "text that ends the answer; may be repeated", collect)
    .option("--ignore-eos", "go on past the checkpoint's end tokens")
    .optionsGroup("Denoising:")
    .option("--quality <name>", "exact, balanced or fast, instead of a strategy", word(...qualities))
    .option("--strategy <name>", `${Object.values(shortNames).join(", ")} (default: dynamic)`, strategy)
    .option("--threshold <p>", "confidence above which dynamic fills (default: 0.9)", numeric)
    .option("--entropy-bound <nats>", "sum of entropies up to which entropy fills (default: 0.35)", numeric)
    .option("--factor <f>", "how much pairwise fills at once (default: 2)", numeric)
    .option("--steps <n>", "most steps for a block (default: its length)", whole)
    .option("--block-length <n>", "positions denoised together, 1 to 64 (default: the checkpoint's)", whole)
    .optionsGroup("Sampling:")
    .option("--temperature <t>", "0 takes the most probable token (default: 0)", numeric)
    .option("--top-k <k>", "sample among the k most probable tokens", whole)
    .option("--top-p <p>", "sample among the fewest tokens of this probability", numeric)
    .option("--min-p <p>", "sample among tokens this many times as probable as the best", numeric)
    .option("--seed <n>", "seed of sampling (default: random)", seed);
}

/** Where a command has one model. */
export function withModelFlags(command: Command): Command {
  return withDeviceFlags(
    command
      .optionsGroup("Model and machine:")
      .option(
        "-m, --model <model>",
        "checkpoint folder, hub id in the local cache, or the shipped model",
        shippedModel,
      ),
  );
}

export function withDeviceFlags(command: Command): Command {
  return command
    .optionsGroup("Model and machine:")
    .option("--device <name>", "auto, cpu, cuda or cuda:N (default: auto)", word("auto", "cpu", "cuda"))
    .option("--weights <format>", "auto, f32, bf16, int8 or int4 (default: auto)", word("auto", ...weightFormats))
    .option("--threads <n>", "threads that compute (default: this machine's cores)", whole);
}

/** The engine judges them: flags that exclude each other are refused there. */
export function answerOptions(flags: AnswerFlags): GenerateDefaults {
  const { strategy, steps, threshold, entropyBound, factor } = flags;
  const { quality, blockLength, maxTokens, ignoreEos, temperature, topK, topP, minP, seed, stop } = flags;
  const denoise = defined({ strategy, steps, threshold, entropyBound, factor });
  const others = defined({ quality, blockLength, maxTokens, ignoreEos, temperature, topK, topP, minP, seed, stop });
  return { ...(Object.keys(denoise).length > 0 && { denoise }), ...others } as GenerateDefaults;
}

/** An option that may be repeated. */
export const collect = (text: string, all: string[] = []): string[] => [...all, text];

/** Options are judged by the library; here they only become numbers. */
export function numeric(text: string): number {
  if (!/^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) throw new InvalidArgumentError("It is not a number.");
  return Number(text);
}

export function whole(text: string): number {
  if (!/^-?\d+$/.test(text)) throw new InvalidArgumentError("It is not a whole number.");
  return Number(text);
}

export function seed(text: string): number | bigint {
  const value = whole(text);
  return Number.isSafeInteger(value) ? value : BigInt(text);
}

/** A short name as the library has it; what is none the library refuses. */
export const strategy = Object.assign((name: string): Strategy => strategyOf(name) ?? (name as Strategy), {
  allowed: Object.values(shortNames),
});

/** The library judges it; a shell's completions are told what there is. */
export const word = <T extends string>(...allowed: readonly T[]) => Object.assign((text: string) => text, { allowed });
