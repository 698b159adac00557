// The stages of sdar bench adapt up to its models: samples, parent, adaptations. What is there already is not made again.
import { existsSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { readJson, shippedModelPath } from "../checkpoint.js";
import { SdarError } from "../errors.js";
import { type AdaptOptions, adapt, type PretrainOptions, pretrain, type TrainOptions } from "../train/index.js";
import { parseAdapt, parsePretrain } from "../train/options.js";
import { writing } from "../train/paths.js";
import { growing, grows } from "../train/run.js";
import { RunFolder } from "../train/run-folder.js";
import { rowCounter, writeSamples } from "./adapt-data.js";
import { sum } from "./report.js";
import { taskSamples } from "./tasks.js";

type Values = Record<string, number | boolean | string>;
export type Form = keyof typeof forms;

/** What a form stands for where nothing else is given. */
export const forms = {
  /** 1.1 million parameters */
  quick: {
    shape: { layers: 6, hidden: 128, heads: 2, kvHeads: 1, headDim: 64, intermediate: 320 },
    samples: 300_000,
    pretrain: { learningRate: 8e-3 },
  },
  /** the shape of the models that ship */
  long: { shape: "nano", samples: 8_000_000, pretrain: {} },
} as const;
const defaultContext = 1024;

export interface RunFlags {
  out: string;
  form: Form;
  shape?: Values;
  samples?: number;
  share: number[];
  blockLength: number[];
  seed: number;
  pretrain?: Values;
  adapt?: Values;
  threads?: number;
  saveSeconds: number;
}

/** What the parent depends on: a folder is of one such set. */
interface ParentSettings {
  shape: PretrainOptions["shape"];
  samples: number;
  seed: number;
  pretrain: Values;
}

/** Adaptations have names of their own in the folder. */
interface Settings extends ParentSettings {
  blockLength: number[];
  adapt: Values;
}

/** Options that the stages set themselves. */
const own = ["data", "to", "run", "from", "shape", "tokenizer", "epochs", "tokens", "heldOut", "seed", "blockLength"];
const how = ["threads", "activations", "saveSeconds"];

/** A model, and what it took to train. */
export interface Trained {
  folder: string;
  steps: number;
  /** position-passes: each row once forward and once backward */
  rows: number;
  /** of samples */
  tokens: number;
  seconds: number;
}

export interface Adapted extends Trained {
  /** of the parent's position-passes: as asked for, and as it came out */
  wanted: number;
  share: number;
}

export interface Models {
  settings: Settings;
  parent: Trained;
  adapted: Adapted[];
}

/**
 * Makes the models in `flags.out`, or what is missing of them. Rejects with INVALID_OPTION before anything is made, and with
 * ABORTED, after which the same call goes on.
 */
export async function makeModels(flags: RunFlags, held: ReadonlySet<string>, signal?: AbortSignal): Promise<Models> {
  const settings = settingsOf(flags);
  const folder = resolve(flags.out);
  const { threads, saveSeconds, share } = flags;
  const at = (...names: string[]) => join(folder, ...names);
  const common = { heldOut: 0, seed: settings.seed, threads, saveSeconds, signal };
  const { shape, blockLength } = settings;
  const forParent: PretrainOptions = {
    ...{ ...common, shape, tokenizer: shippedModelPath(), data: at("parent.jsonl"), to: at("parent") },
    ...settings.pretrain,
  };
  const forShare = (wanted: number): AdaptOptions => ({
    ...{ ...common, from: at("parent"), blockLength },
    ...{ data: at(`${nameOf(wanted, settings)}.jsonl`), to: at(nameOf(wanted, settings)) },
    ...settings.adapt,
  });
  naming("--pretrain", () => parsePretrain(forParent));
  const adaptSettings = naming("--adapt", () => parseAdapt(forShare(1))).settings;
  const { recipe, views, blocks } = adaptSettings;
  if (recipe === "autoregressive") throw invalid("--adapt", "recipe: give sdar or views");
  const lengths = grows(adaptSettings, true) ? growing(blocks[0] ?? 1) : blocks;
  const { adapt: _, blockLength: __, ...ofParent } = settings;
  begin(folder, ofParent);

  const parent = await trained(forParent, "parent", pretrain, (file) =>
    writeSamples(file, taskSamples(settings.seed, held), (_, count) => count === settings.samples, signal),
  );
  const adapted: Adapted[] = [];
  for (const wanted of share) {
    const made = await trained(forShare(wanted), nameOf(wanted, settings), adapt, (file) => {
      const rows = rowCounter(parent.folder, { recipe, views, blocks: lengths });
      let left = wanted * parent.rows;
      // Other samples than the parent's, and the same ones first for each share.
      const enough = (line: string) => {
        left -= rows(line);
        return left <= 0;
      };
      return writeSamples(file, taskSamples(settings.seed + 1, held), enough, signal);
    });
    adapted.push({ ...made, wanted, share: made.rows / parent.rows });
  }
  return { settings, parent, adapted };
}

/** sdar-0.1, with what is not by default: sdar-0.1-b4,8-views=4,compute=bf16. */
function nameOf(wanted: number, { blockLength, adapt }: Settings): string {
  const options = Object.entries(adapt).map(([name, value]) => `${name}=${value}`);
  const others = [blockLength.join() === "8" ? [] : [`b${blockLength}`], options.length > 0 ? [options.join()] : []];
  return [`sdar-${wanted}`, ...others.flat()].join("-").replace(/[^\w.,=-]/g, "_");
}

function settingsOf({ form, shape, samples, blockLength, seed, pretrain = {}, adapt = {} }: RunFlags): Settings {
  for (const [flag, values] of Object.entries({ "--pretrain": pretrain, "--adapt": adapt })) {
    const set = [...own, ...how].find((name) => name in values);
    if (set) throw invalid(flag, `${set} is not allowed: the benchmark sets it, or has an option for it`);
  }
  const given = forms[form];
  const sizes = shape ?? given.shape;
  return {
    // Judged by pretrain().
    shape: (sizes === "nano" ? sizes : { context: defaultContext, ...sizes }) as PretrainOptions["shape"],
    samples: samples ?? given.samples,
    ...{ blockLength, seed },
    pretrain: { ...given.pretrain, ...pretrain },
    adapt,
  };
}

const invalid = (option: string, message: string) =>
  new SdarError("INVALID_OPTION", `${option}: ${message}`, { option });

/** Errors of options that come from a flag tell which. */
function naming<T>(flag: string, check: () => T): T {
  try {
    return check();
  } catch (cause) {
    if (!SdarError.is(cause, "INVALID_OPTION")) throw cause;
    const ours = cause.option?.split(/[.[]/)[0];
    const flags: Record<string, string> = { shape: "--shape", blockLength: "--block-length", seed: "--seed" };
    throw invalid(flags[ours ?? ""] ?? (how.includes(ours ?? "") ? `--${ours}` : flag), cause.message);
  }
}

/** Writes what the folder is of, or compares with what it was begun with. */
function begin(folder: string, settings: ParentSettings): void {
  const file = join(folder, "settings.json");
  const begun = readJson(file, "FILE_UNREADABLE") as unknown as ParentSettings | undefined;
  if (begun) {
    for (const name of Object.keys(settings) as (keyof ParentSettings)[]) {
      if (isDeepStrictEqual(begun[name], settings[name])) continue;
      const [before, now] = [begun[name], settings[name]].map((value) => JSON.stringify(value));
      throw invalid(
        `--${name}`,
        `${folder} was begun with ${before}, not ${now}; give the same, or another folder as --out`,
      );
    }
    return;
  }
  if (existsSync(folder)) throw invalid("--out", `${folder} exists and is of something else; give another folder`);
  writing(folder, () => {
    // Whole or not at all.
    mkdirSync(`${folder}.partial`, { recursive: true });
    writeFileSync(join(`${folder}.partial`, "settings.json"), `${JSON.stringify(settings, null, 2)}\n`);
    renameSync(`${folder}.partial`, folder);
  });
}

/** Trains a model unless it is there, its samples first; tells of it what its log says. */
async function trained<Options extends TrainOptions>(
  options: Options,
  name: string,
  train: (options: Options) => Promise<unknown>,
  makeData: (file: string) => Promise<void>,
): Promise<Trained> {
  const { to } = options;
  if (!existsSync(to)) {
    const data = String(options.data);
    if (!existsSync(data)) await makeData(data);
    await train({ ...options, ...told(name) });
  }
  const entries = new RunFolder(`${to}.run`).entries(Number.POSITIVE_INFINITY);
  if (entries.length === 0 || entries.some(({ step }, i) => step !== i + 1))
    throw new SdarError(
      "FILE_NOT_FOUND",
      `${to}.run has no whole log of what ${to} has cost; remove ${to} to train it again`,
    );
  const total = (of: "rows" | "tokens" | "seconds") => sum(entries.map((entry) => entry[of]));
  return { folder: to, steps: entries.length, rows: total("rows"), tokens: total("tokens"), seconds: total("seconds") };
}

/** A line at the beginning, and one for each twentieth of the steps. */
function told(name: string): Pick<TrainOptions, "onStart" | "onProgress"> {
  const tell = (text: string) => process.stderr.write(`${name}: ${text}\n`);
  return {
    onStart: ({ parameters, samples, tokens, steps, stepsDone }) =>
      tell(`${parameters} parameters, ${samples} samples, ${tokens} tokens; step ${stepsDone} of ${steps}`),
    onProgress: ({ step, steps, loss, tokensPerSecond, etaSeconds }) => {
      if (step % Math.ceil(steps / 20) !== 0 && step !== steps) return;
      const left = etaSeconds < 100 ? `${Math.round(etaSeconds)} s` : `${Math.round(etaSeconds / 60)} min`;
      tell(`step ${step}/${steps}, loss ${loss.toFixed(4)}, ${Math.round(tokensPerSecond)} tokens/s, ${left} left`);
    },
  };
}
