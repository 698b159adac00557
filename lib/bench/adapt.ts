// sdar bench adapt: whether adaptation is worth its compute. Trains a parent and adaptations of it from nothing on the shipped
// tasks, and lets them answer the held-out samples.
import { join } from "node:path";
import { Command } from "commander";
import { SdarError } from "../errors.js";
import { writeCharts } from "../plot.js";
import { charts, describe, evaluate, shortfalls } from "./adapt-report.js";
import { type Form, forms, makeModels, type RunFlags } from "./adapt-runs.js";
import { notNegative, oneOf, pairs, positive, positiveList, whole, wholeList } from "./flags.js";
import { readSamples } from "./prompts.js";
import { deliver } from "./report.js";

interface Flags extends RunFlags {
  prompts?: string;
  limit?: number;
  mostLost?: number;
  leastTokensPerForward?: number;
  json?: boolean;
  outJson?: string | true;
}

/** `interruptible` gives what is measured a signal that ends it early, and tells how to go on. */
export function adaptCommand(interruptible: (work: (signal: AbortSignal) => Promise<void>) => Promise<void>): Command {
  return new Command("adapt")
    .description("Trains a parent and adaptations of it on the shipped tasks; accuracy, speed and compute of all")
    .requiredOption("--out <folder>", "of data, models and results; where it is there, the same command goes on")
    .optionsGroup("Models:")
    .option(
      "--form <name>",
      "quick: a million parameters; long: those of the shipped models",
      oneOf(...formNames),
      "quick",
    )
    .option(
      "--shape <sizes>",
      "another shape: layers=6,hidden=128,heads=2,kvHeads=1,headDim=64,intermediate=320",
      pairs,
    )
    .option("--samples <n>", "of the parent's training (default: 300000, of the long form 8000000)", whole(1))
    .option("--share <list>", "position-passes of the adaptations over the parent's", positiveList, [0.05, 0.1, 0.25])
    .option("--block-length <list>", "positions denoised together; of several, each sample draws one", wholeList, [8])
    .option("--seed <n>", "of everything that is drawn", whole(0), 0)
    .option("--pretrain <name=value,…>", "more options of pretrain(): learningRate=2e-3,weightDecay=0.1", pairs)
    .option(
      "--adapt <name=value,…>",
      "more options of adapt(): recipe=views,views=4,learningRate=1e-3,rows=1024",
      pairs,
    )
    .optionsGroup("Run:")
    .option("--threads <n>", "threads that compute (default: this machine's cores)", whole(1))
    .option("--save-seconds <n>", "seconds after which the state of a training is written again", positive, 60)
    .optionsGroup("Evaluation:")
    .option("--prompts <file>", "JSON lines with prompt, answer and task (default: the repository's held-out samples)")
    .option("--limit <n>", "most prompts to run", whole(1))
    .option(
      "--most-lost <points>",
      "exit with 1 where the largest adaptation is that far below its parent",
      notNegative,
    )
    .option("--least-tokens-per-forward <n>", "exit with 1 where it fills fewer", positive)
    .option("--json", "print one JSON object")
    .option("--out-json [file]", "write the JSON to another file, too (default: one in bench/results)")
    .addHelpText("after", "\nExample:\n  sdar bench adapt --out /tmp/evidence --share 0.05,0.1")
    .action((flags: Flags) => interruptible((signal) => measure(flags, signal)));
}

const formNames = Object.keys(forms) as Form[];

async function measure(flags: Flags, signal: AbortSignal): Promise<void> {
  const { out, prompts, limit, threads, json, outJson, mostLost, leastTokensPerForward } = flags;
  const samples = readSamples(prompts);
  if (samples.some(({ answer }) => answer === undefined))
    throw new SdarError("INVALID_OPTION", "--prompts: give each prompt with its answer", { option: "--prompts" });
  // All of them, so that the models do not depend on --limit.
  const models = await makeModels(flags, new Set(samples.map(({ prompt }) => prompt)), signal);
  const asked = samples.slice(0, limit);
  const results = await evaluate(models, asked, { threads, signal });
  const { settings } = models;
  const bounds = { mostLost, leastTokensPerForward };
  const short = shortfalls(results, bounds);
  const report = {
    results,
    settings: { ...settings, threads, prompts: asked.length, bounds },
    shortfalls: short,
  };
  if (!json) process.stdout.write(describe(models, results, asked.length));
  writeCharts(join(out, "adapt.svg"), charts(results));
  deliver("adapt", report, { json, out: join(out, "adapt.json") });
  if (outJson !== undefined) deliver("adapt", report, { out: outJson });
  for (const each of short) process.stderr.write(`sdar: ${each}\n`);
  if (short.length > 0) process.exitCode = 1;
}
