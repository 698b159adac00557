// What sdar adapt and sdar pretrain have in common: flags, progress, the end.
import { type Command, Option } from "commander";
import type { TrainOptions, TrainProgress, TrainResult, TrainStart } from "../train/index.js";
import { numeric, word } from "./generation.js";
import { interruptible } from "./signals.js";
import { isTerminal } from "./terminal.js";

export type TrainFlags = Omit<TrainOptions, "onStart" | "onProgress" | "signal"> & { json?: boolean };

export const numericList = (text: string): number[] => text.split(",").map(numeric);

/** Adds the flags of every training run. */
export function withTrainFlags(
  command: Command,
  defaults: Record<"learningRate" | "weightDecay" | "optimizer" | "rows", string>,
): Command {
  return command
    .requiredOption("--data <file...>", "JSONL: messages, prompt with completion, or text on each line")
    .requiredOption("--to <folder>", "folder of the finished model; it must not exist")
    .optionsGroup("Run:")
    .option("--run <folder>", "folder of settings, log and state; where it is there, the run goes on (default: TO.run)")
    .option("--save-seconds <n>", "seconds after which the state is written again (default: 120)", numeric)
    .option("--evaluate-every <n>", "steps between evaluations (default: a twentieth of the run)", numeric)
    .option("--threads <n>", "threads that compute (default: this machine's cores)", numeric)
    .option(
      "--activations <what>",
      "keep (faster), recompute (much less memory) or auto (default: auto)",
      word("keep", "recompute", "auto"),
    )
    .option("--json", "print one JSON object at the end, and nothing else")
    .optionsGroup("Data:")
    .option("--epochs <n>", "passes over the samples (default: 1)", numeric)
    .option("--tokens <n>", "tokens of samples to train on, instead of epochs", numeric)
    .option("--held-out <share>", "share of the samples that is evaluated only (default: 0.01)", numeric)
    .option(
      "--too-long <what>",
      "samples longer than the context: refuse, skip or cut (default: refuse)",
      word("refuse", "skip", "cut"),
    )
    .option("--seed <n>", "of everything that is drawn (default: 0)", numeric)
    .optionsGroup("Steps:")
    .option("--rows <n>", `most rows of a batch (default: ${defaults.rows})`, numeric)
    .option("--accumulate <n>", "batches whose gradients are averaged for a step (default: 1)", numeric)
    .option("--learning-rate <rate>", `the highest one (default: ${defaults.learningRate})`, numeric)
    .option("--warmup <share>", "of the steps, in which the learning rate rises (default: 0.01)", numeric)
    .option("--decay <kind>", "constant, linear or cosine (default: linear)", word("constant", "linear", "cosine"))
    .option("--clip <norm>", "largest norm of the gradients (default: 1)", numeric)
    .option("--weight-decay <rate>", `of matrices (default: ${defaults.weightDecay})`, numeric)
    .option(
      "--optimizer <name>",
      `adamw, or muon for the layers' matrices (default: ${defaults.optimizer})`,
      word("adamw", "muon"),
    )
    .option("--momentum <m>", "Muon's (default: 0.95)", numeric)
    .option("--ema <decay>", "write a running average of the weights, of this decay a step (default: 0, none)", numeric)
    .addOption(new Option("--beta1 <b>", "AdamW's (default: 0.9)").argParser(numeric))
    .addOption(new Option("--beta2 <b>", "AdamW's (default: 0.95)").argParser(numeric))
    .addOption(new Option("--epsilon <e>", "AdamW's (default: 1e-8)").argParser(numeric))
    .option("--compute <type>", "what products are computed of: f32 or bf16 (default: f32)", word("f32", "bf16"))
    .option("--dtype <type>", "of the finished model: bf16 or f32 (default: bf16)", word("bf16", "f32"));
}

/** Runs it, tells how it goes on standard error, and what came out on standard output. Ctrl-C saves, and so do SIGTERM and SIGHUP. */
export async function runTraining(
  json: boolean | undefined,
  train: (hooks: Pick<TrainOptions, "onStart" | "onProgress" | "signal">) => Promise<TrainResult>,
): Promise<void> {
  const view = new ProgressView(!json);
  // Where nobody reads any more how it goes on, it goes on.
  process.stderr.removeAllListeners("error").on("error", () => view.stop());
  view.prepare();
  await interruptible(async (signal) => {
    try {
      const result = await train({
        onStart: (start) => view.start(start),
        onProgress: (progress) => view.show(progress),
        signal,
      });
      view.clear();
      process.stdout.write(json ? `${JSON.stringify(result)}\n` : `${told(result)}\n`);
    } finally {
      view.clear();
    }
  });
}

function told({ folder, run, steps, loss, heldOutLoss, seconds }: TrainResult): string {
  const last = loss === undefined ? "" : `, loss ${loss.toFixed(4)}`;
  const heldOut = heldOutLoss === undefined ? "" : `, ${heldOutLoss.toFixed(4)} on what was held out`;
  return (
    `${folder}: ${counted(steps, "step")} in ${duration(seconds)}${last}${heldOut}\n` +
    `${run}/loss.svg has the plot; the folder of the run is no longer needed`
  );
}

/** A line that is redrawn on a terminal; elsewhere one for each evaluation, or for each twentieth of the steps without any. */
class ProgressView {
  #on: boolean;
  #live: boolean;
  #evaluated = false;

  constructor(on: boolean) {
    this.#on = on;
    this.#live = on && isTerminal(process.stderr);
  }

  stop(): void {
    this.#on = this.#live = false;
  }

  /** Millions of lines take minutes. */
  prepare(): void {
    if (this.#live) process.stderr.write("reading data and checkpoint …");
  }

  start(start: TrainStart): void {
    this.#evaluated = start.heldOutSamples > 0;
    const { run, resumed, parameters, trained, samples, heldOutSamples, tokens, answerTokens, skipped, cut, threads } =
      start;
    const left = [skipped > 0 && `${skipped} too long and left out`, cut > 0 && `${cut} cut`].filter(Boolean);
    this.#line(
      `${count(parameters)} parameters${trained === parameters ? "" : `, ${count(trained)} of adapters are trained`}, ${counted(threads, "thread")}`,
      `${counted(samples, "sample")} (${heldOutSamples} held out${left.map((what) => `, ${what}`).join("")}), ${count(tokens)} tokens, ${count(answerTokens)} of them in answers`,
      `memory in MiB: ${start.memory}`,
      resumed
        ? `${run}: goes on after step ${start.stepsDone} of ${start.steps}`
        : `${run}: ${counted(start.steps, "step")}`,
    );
  }

  show({ step, steps, loss, heldOutLoss, tokensPerSecond, etaSeconds }: TrainProgress): void {
    if (!this.#on) return;
    const line = `step ${step}/${steps}  loss ${loss.toFixed(4)}  ${Math.round(tokensPerSecond)} tokens/s  ${duration(etaSeconds)} left`;
    if (heldOutLoss !== undefined) this.#line(`${line}  held out ${heldOutLoss.toFixed(4)}`);
    else if (!this.#live && !this.#evaluated) {
      if (step === steps || step % Math.ceil(steps / 20) === 0) this.#line(line);
    } else if (this.#live) process.stderr.write(`\r${line}\x1b[K`);
  }

  clear(): void {
    if (this.#live) process.stderr.write("\r\x1b[K");
  }

  #line(...lines: string[]): void {
    if (!this.#on) return;
    this.clear();
    process.stderr.write(`${lines.join("\n")}\n`);
  }
}

const counted = (n: number, what: string) => `${n} ${what}${n === 1 ? "" : "s"}`;

function count(n: number): string {
  if (n < 1e4) return String(n);
  const [unit, name] = n < 1e6 ? [1e3, "k"] : n < 1e9 ? [1e6, "M"] : [1e9, "G"];
  return `${Number((n / (unit as number)).toPrecision(3))} ${name}`;
}

function duration(seconds: number): string {
  if (seconds < 99.5) return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s`;
  if (seconds < 5970) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
