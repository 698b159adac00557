// sdar generate: one prompt, printed as it is denoised.
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Command, InvalidArgumentError } from "commander";
import { shippedModel } from "../checkpoint.js";
import { Engine } from "../engine.js";
import { SdarError } from "../errors.js";
import { shortNames, strategyOf } from "../quality.js";
import type { GenerateRequest, GenerateResult, LoadOptions, Quality, Strategy } from "../types.js";
import { commandLines, prompts } from "./prompts.js";
import { onInterrupt } from "./signals.js";
import { isTerminal, printable } from "./terminal.js";
import { WatchView } from "./watch.js";

interface Flags {
  model: string;
  raw?: boolean;
  system?: string;
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
  device?: LoadOptions["device"];
  weights?: LoadOptions["weights"];
  threads?: number;
  watch?: boolean;
  frame: number;
  json?: boolean;
}

export function generateCommand(): Command {
  return new Command("generate")
    .description("Answers a prompt and prints the answer as it is denoised")
    .argument("[prompt]", "the prompt; - reads standard input; without it a terminal asks, else standard input is read")
    .optionsGroup("Output:")
    .option("-w, --watch", "show the block being denoised: masked positions, then tokens coloured by step")
    .option("--frame <ms>", "with --watch, the least time a step is shown", numeric, 250)
    .option("--json", "print one JSON object with text, tokens, usage and timings")
    .optionsGroup("Prompt:")
    .option("--system <text>", "a system message before the prompt")
    .option("--raw", "take the prompt as it is, without the chat template")
    .optionsGroup("Length:")
    .option("-n, --max-tokens <n>", "most tokens to generate (default: the rest of the context)", whole)
    .option("--stop <text>", "text that ends the answer; may be repeated", (text, all: string[] = []) => [...all, text])
    .option("--ignore-eos", "go on past the checkpoint's end tokens")
    .optionsGroup("Denoising:")
    .option("--quality <name>", "exact, balanced or fast, instead of a strategy")
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
    .option("--seed <n>", "seed of sampling (default: random)", seed)
    .optionsGroup("Model and machine:")
    .option("-m, --model <model>", "checkpoint folder, hub id in the local cache, or the shipped model", shippedModel)
    .option("--device <name>", "auto, cpu, cuda or cuda:N (default: auto)")
    .option("--weights <format>", "auto, f32, bf16, int8 or int4 (default: auto)")
    .option("--threads <n>", "threads that compute (default: this machine's cores)", whole)
    .addHelpText(
      "after",
      `\nExamples, which the shipped model answers right:\n  ${commandLines.join("\n  ")}\n  sdar generate --watch '${prompts[0].prompt}'`,
    )
    .action(generate);
}

async function generate(given: string | undefined, flags: Flags, command: Command): Promise<void> {
  const prompt = await readPrompt(given, flags, command);
  const interrupt = new AbortController();
  onInterrupt(() => interrupt.abort());
  const { signal } = interrupt;
  try {
    const loading = performance.now();
    const { device, weights, threads } = flags;
    await using engine = await Engine.load(flags.model, { device, weights, threads, signal });
    const loadMs = performance.now() - loading;
    if (!flags.raw && !engine.model.hasChatTemplate && engine.model.hasTokenizer) {
      throw new SdarError("TEMPLATE_MISSING", `${engine.model.path} has no chat template; use --raw`);
    }
    const watch = flags.watch && !flags.json && isTerminal(process.stdout);
    const began = performance.now();
    const run = engine.generate({ ...request(prompt, flags), drafts: watch === true, signal });
    // What is shown may lag behind what is timed.
    const timed = run.result().then((result) => ({ result, totalMs: performance.now() - began }));
    timed.catch(() => {});
    const view = watch ? new WatchView(process.stdout, engine.model.endTokenIds) : undefined;
    let firstTextMs: number | undefined;
    let thinking = false;
    for await (const chunk of run) {
      if (chunk.text !== "") firstTextMs ??= performance.now() - began;
      if (flags.json) continue;
      // The answer alone is on standard output.
      if (!view && chunk.reasoning !== undefined) process.stderr.write(printable(chunk.reasoning));
      if (!view && thinking && chunk.text !== "") process.stderr.write("\n\n");
      thinking = chunk.text === "" && (thinking || chunk.reasoning !== undefined);
      if (!view) process.stdout.write(isTerminal(process.stdout) ? printable(chunk.text) : chunk.text);
      for (const _ of view?.frames(chunk) ?? []) await sleep(flags.frame, undefined, { signal }).catch(() => {});
    }
    const { result, totalMs } = await timed;
    const tokensPerSecond = (1000 * result.usage.completionTokens) / totalMs;
    if (flags.json) {
      const timings = { loadMs, firstTextMs, totalMs, tokensPerSecond };
      printJson({ model: engine.model.path, ...result, timings });
    } else {
      view?.end(result.text);
      process.stdout.write("\n");
      process.stderr.write(`${view ? saved(result) : summary(result, tokensPerSecond)}\n`);
      if (flags.model === shippedModel && isTerminal(process.stderr)) process.stderr.write(`${more(prompt)}\n`);
    }
  } catch (error) {
    if (!(error instanceof SdarError && error.code === "ABORTED")) throw error;
  }
  if (signal.aborted) process.exitCode = 130;
}

function request(prompt: string, flags: Flags): GenerateRequest {
  const { strategy, steps, threshold, entropyBound, factor, quality, system } = flags;
  const denoise = { strategy, steps, threshold, entropyBound, factor };
  const { blockLength, maxTokens, ignoreEos, temperature, topK, topP, minP, seed, stop } = flags;
  const messages = [{ role: "user", content: prompt }];
  if (system !== undefined) messages.unshift({ role: "system", content: system });
  return {
    ...(flags.raw ? { prompt } : { messages }),
    ...(Object.values(denoise).some((value) => value !== undefined) ? { denoise } : {}),
    ...{ quality, blockLength, maxTokens, ignoreEos, temperature, topK, topP, minP, seed, stop },
  } as GenerateRequest; // flags that exclude each other are refused by the engine
}

async function readPrompt(given: string | undefined, { raw }: Flags, command: Command): Promise<string> {
  if (raw && given !== undefined && given !== "-") return given;
  const asks = given === undefined && process.stdin.isTTY;
  let prompt = given;
  if (asks) prompt = await ask();
  else if (given === undefined || given === "-") {
    prompt = "";
    for await (const part of process.stdin.setEncoding("utf8")) prompt += part;
    prompt = prompt.replace(/\r?\n$/, "");
  }
  // The model answers anything, also nothing at all.
  if (prompt === undefined || (raw ? prompt : prompt.trim()) === "") {
    const why = asks || (given !== undefined && given !== "-") ? "it is empty" : "standard input is empty";
    command.error(`error: no prompt: ${why}`);
  }
  return prompt;
}

/** On standard error, so that the answer alone is on standard output. */
async function ask(): Promise<string> {
  process.stderr.write(`Try: ${prompts.map(({ prompt }) => prompt).join("\n     ")}\n`);
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await new Promise((resolve) => {
      lines.question("Prompt: ", resolve);
      lines.once("close", () => resolve(""));
    });
  } finally {
    lines.close();
  }
}

function summary({ usage, finishReason }: GenerateResult, tokensPerSecond: number): string {
  const perForward = usage.tokensPerForward.toFixed(2);
  const why = finishReason === "length" ? "; cut at the length limit" : finishReason === "abort" ? "; interrupted" : "";
  return `${usage.completionTokens} tokens, ${tokensPerSecond.toFixed(1)} tokens/s, ${perForward} tokens per forward${why}`;
}

/** What blocks save: an autoregressive model takes a forward for each token. */
function saved({ usage: { completionTokens, forwards } }: GenerateResult): string {
  return `${completionTokens} tokens in ${forwards} forwards; one at a time: ${completionTokens}`;
}

/** What else to ask the shipped model. */
function more(asked: string): string {
  const next = (prompts.findIndex(({ prompt }) => prompt === asked) + 1) % prompts.length;
  return `next: ${commandLines[next]}   (all: sdar generate --help)`;
}

function printJson(value: object): void {
  const text = JSON.stringify(value, (_key, v) => (typeof v === "bigint" ? String(v) : v), 2);
  process.stdout.write(`${text}\n`);
}

/** Options are judged by options.ts; here they only become numbers. */
function numeric(text: string): number {
  if (!/^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) throw new InvalidArgumentError("It is not a number.");
  return Number(text);
}

function whole(text: string): number {
  if (!/^-?\d+$/.test(text)) throw new InvalidArgumentError("It is not a whole number.");
  return Number(text);
}

function seed(text: string): number | bigint {
  if (!/^-?\d+$/.test(text)) throw new InvalidArgumentError("It is not a whole number.");
  return Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text);
}

function strategy(name: string): Strategy {
  return strategyOf(name) ?? (name as Strategy);
}
