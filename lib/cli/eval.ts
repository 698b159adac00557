// sdar eval: how many prompts of a file a model answers right.
import { closeSync, openSync, writeSync } from "node:fs";
import { Command } from "commander";
import { type EvalAnswer, type EvalVariant, evaluate } from "../bench/eval.js";
import { readEvalItems } from "../bench/eval-items.js";
import { describeEval, evalResults } from "../bench/eval-report.js";
import { whole } from "../bench/flags.js";
import { deliver } from "../bench/report.js";
import { shippedModel } from "../checkpoint.js";
import { invalidOption, SdarError } from "../errors.js";
import { describeOptions, setOption } from "../option-text.js";
import type { GenerateDefaults, LoadOptions } from "../types.js";
import {
  type AnswerFlags,
  answerOptions,
  collect,
  type ModelFlags,
  withAnswerFlags,
  withDeviceFlags,
} from "./generation.js";
import { loadingText, ProgressLine } from "./progress.js";
import { onInterrupt } from "./signals.js";

interface Flags extends AnswerFlags, Omit<ModelFlags, "model"> {
  model?: string[];
  setting?: string[];
  samples: number;
  limit?: number;
  concurrency: number;
  json?: boolean;
  out?: string;
}

/** Of several samples when nobody says otherwise: at 0 all would be the same. */
const sampledTemperature = 0.7;

export function evalCommand(): Command {
  const command = new Command("eval")
    .description("Counts right answers: accuracy by task with intervals, for one or several models and settings")
    .argument("<file>", "JSON lines with prompt or messages, answer, and if wanted match, choices, task")
    .optionsGroup("What is compared:")
    .option(
      "-m, --model <model>",
      `checkpoint folder, hub id in the cache, or ${shippedModel}; may be repeated`,
      collect,
    )
    .option("--setting <list>", "options as name=value,…; may be repeated, and each is run on each model", collect)
    .option("--samples <k>", "answers to each prompt, for pass@k and majority@k, 1 to 64", whole(1), 1)
    .option("--limit <n>", "most prompts to run", whole(1))
    .option("--concurrency <n>", "prompts in flight", whole(1), 64)
    .optionsGroup("Output:")
    .option("--json", "print one JSON object")
    .option("--out <file>", "write each answer as a JSON line");
  return withDeviceFlags(withAnswerFlags(command))
    .addHelpText(
      "after",
      `
A line is {"prompt": "31 x 7", "answer": "217"}; "messages" may stand in the place of "prompt".
"match" says when a text is right:
  exact    it is the answer, but for white space around it (the default)
  pattern  it has a match of the answer, a regular expression
  choice   it is the answer; one of "choices" is generated
Lines with the same "task" are also counted on their own. Ctrl-C prints what was measured until then.

Examples:
  sdar eval prompts.jsonl
  sdar eval prompts.jsonl --setting threshold=0.9 --setting strategy=pairwise,factor=5
  sdar eval prompts.jsonl -m ./before -m ./after --out answers.jsonl
  sdar eval prompts.jsonl --samples 8 --temperature 0.7`,
    )
    .action(run);
}

async function run(file: string, flags: Flags): Promise<void> {
  const { samples, limit, concurrency, json, out, device, weights, threads } = flags;
  if (samples > 64) throw invalidOption("--samples", samples, "1 to 64");
  const items = readEvalItems(file, limit);
  const variants = variantsOf(flags);
  const interrupt = new AbortController();
  const { signal } = interrupt;
  onInterrupt(() => interrupt.abort());
  const answers = out === undefined ? undefined : new AnswerFile(out);
  const line = new ProgressLine(!json);
  const load = (model: string): LoadOptions => ({
    ...{ device, weights, threads, maxConcurrent: Math.min(4096, Math.max(64, samples)) },
    onProgress: (progress) => line.show(() => loadingText(model, progress)),
  });
  const onAnswer = (variant: EvalVariant, answer: EvalAnswer, done: number) => {
    answers?.add(variant, answer);
    const which =
      variants.length > 1 ? `${variant.name} (${variants.indexOf(variant) + 1} of ${variants.length}): ` : "";
    line.show(() => `${which}${done} of ${items.length} prompts`);
  };
  try {
    const runs = await evaluate({ items, variants, samples, concurrency, load, onAnswer, signal });
    line.clear();
    const results = evalResults(runs, samples);
    if (!json && results.length > 0) process.stdout.write(describeEval(results, samples));
    const settings = { file, prompts: items.length, samples, concurrency, interrupted: signal.aborted };
    deliver("eval", { results, settings }, { json });
  } finally {
    line.clear();
    answers?.close();
  }
  if (!signal.aborted) return;
  process.stderr.write("interrupted: these are the answers until then\n");
  process.exitCode = 130;
}

/** Each setting on each model; what flags say holds for all. */
function variantsOf(flags: Flags): EvalVariant[] {
  const { model: models = [shippedModel], setting: settings = [""], samples } = flags;
  const base = answerOptions(flags);
  return models.flatMap((model) =>
    settings.map((setting) => {
      const given = setting === "" ? base : setting.split(",").reduce(setOption, base);
      const options: GenerateDefaults = samples > 1 ? { temperature: sampledTemperature, ...given } : given;
      const name = [models.length > 1 || setting === "" ? model : "", setting].filter(Boolean).join(" ");
      if (samples > 1 && options.temperature === 0) {
        throw invalidOption("temperature", 0, `more with --samples ${samples}: at 0 all are the same`);
      }
      return { name: name || describeOptions(options), model, options };
    }),
  );
}

/** Lines as they come, so that they are there when it is interrupted. */
class AnswerFile {
  readonly #file: string;
  readonly #fd: number;

  constructor(file: string) {
    this.#file = file;
    this.#fd = this.#try(() => openSync(file, "w"));
  }

  add({ name, model }: EvalVariant, { item, index, texts, right, majority, usage, error }: EvalAnswer): void {
    const { prompt, messages, answer, task } = item;
    const line = { variant: name, model, index, task, prompt, messages, answer, texts, right, majority, usage, error };
    this.#try(() => writeSync(this.#fd, `${JSON.stringify(line)}\n`));
  }

  close(): void {
    closeSync(this.#fd);
  }

  #try<T>(act: () => T): T {
    try {
      return act();
    } catch (cause) {
      throw new SdarError("FILE_UNWRITABLE", `cannot write ${this.#file}: ${(cause as Error).message}`, { cause });
    }
  }
}
