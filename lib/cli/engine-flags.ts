// What the commands that serve many requests have in common: flags of the engine, and the options that they mean.
import type { Command } from "commander";
import { kvFormats } from "../binding.js";
import { defined } from "../defined.js";
import { qualities } from "../quality.js";
import type { LoadOptions, Quality } from "../types.js";
import { type ModelFlags, whole, withDeviceFlags, word } from "./generation.js";

export interface EngineFlags extends Omit<ModelFlags, "model"> {
  isa?: string;
  maxConcurrent?: number;
  prefillTokens?: number;
  kvTokens?: number;
  kvBytes?: number;
  kvDtype?: NonNullable<LoadOptions["kvCache"]>["dtype"];
  prefixCache: boolean;
  weightCache?: string | false;
  weightCacheBytes?: number;
  maxTokens?: number;
  quality?: Quality;
}

export function withEngineFlags(command: Command): Command {
  return withDeviceFlags(command)
    .option("--isa <name>", "instruction set of the CPU, for comparisons (default: the best this machine has)")
    .option("--max-concurrent <n>", "most completions in one step (default: 64)", whole)
    .option("--prefill-tokens <n>", "most prompt positions in a step beside requests that generate", whole)
    .option("--kv-tokens <n>", "size of the key/value cache in tokens (default: from this machine's memory)", whole)
    .option("--kv-bytes <n>", "the same in bytes", whole)
    .option("--kv-dtype <format>", `auto, ${kvFormats.join(", ")} (default: auto)`, word("auto", ...kvFormats))
    .option("--no-prefix-cache", "requests that begin alike share nothing")
    .option("--weight-cache <folder>", "folder of packed weights (default: $SDAR_CACHE_DIR, else in ~/.cache)")
    .option("--no-weight-cache", "pack weights at each start, and write no file")
    .option("--weight-cache-bytes <n>", "what files of packed weights may take together (default: 64 GiB)", whole)
    .option("--max-tokens <n>", "most tokens of requests that do not say (default: the rest of the context)", whole)
    .option("--quality <name>", "exact, balanced or fast, for requests that do not say", word(...qualities));
}

/** The engine judges them: flags that exclude each other are refused there. */
export function engineOptions(flags: EngineFlags): LoadOptions {
  const { device, weights, threads, isa, maxConcurrent, prefillTokens, weightCache, weightCacheBytes } = flags;
  const { kvTokens: tokens, kvBytes: bytes, kvDtype: dtype, prefixCache, maxTokens, quality } = flags;
  return {
    ...defined({ device, weights, threads, isa, maxConcurrent, prefillTokens, weightCache, weightCacheBytes }),
    kvCache: defined({ tokens, bytes, dtype }),
    prefixCache,
    generate: defined({ maxTokens, quality }),
  };
}
