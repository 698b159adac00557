// The folder of a run: what it depends on, its log, its state.
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { readJson, readOptional } from "../checkpoint.js";
import { SdarError } from "../errors.js";
import type { ModelFacts } from "./model-files.js";
import type { Settings } from "./options.js";
import { writing } from "./paths.js";

/** settings.json: written once, when all else is there to begin with. */
export interface RunRecord {
  format: 1;
  settings: Settings;
  facts: ModelFacts;
  /** of the data, in their order, and of the checkpoint's files by name */
  data: [file: string, hash: string][];
  source: Record<string, string>;
  samplesHash: string;
  skipped: number;
  cut: number;
}

/** A line of log.jsonl. */
export interface LogEntry {
  /** steps done */
  step: number;
  loss: number;
  norm: number;
  learningRate: number;
  tokens: number;
  answerTokens: number;
  rows: number;
  seconds: number;
  heldOutLoss?: number;
}

/** What a run writes, and what it may leave when it is killed before its settings are there. */
const ours = /^((settings\.json|log\.jsonl|loss\.svg|samples\.bin|state|lock|model)(\.partial)?|begin-\w{6})$/;

/** What is being prepared, in a folder of its own. */
export interface Fresh {
  folder: string;
  model: string;
  samples: string;
}

export class RunFolder {
  readonly path: string;
  #log: number | undefined;

  constructor(path: string) {
    this.path = path;
  }

  get model(): string {
    return join(this.path, "model");
  }
  get samples(): string {
    return join(this.path, "samples.bin");
  }

  /** What was begun here; undefined where nothing was. Throws INVALID_OPTION for a folder of anything else. */
  record(): RunRecord | undefined {
    const file = join(this.path, "settings.json");
    const json = readJson(file, "CHECKPOINT_INVALID");
    if (json) {
      if (json.format === 1) {
        const missing = ["settings", "facts", "data", "source", "samplesHash"].find((name) => !json[name]);
        if (missing) throw new SdarError("CHECKPOINT_INVALID", `${file}: damaged, it has no ${missing}`);
        return json as unknown as RunRecord;
      }
      throw new SdarError("CHECKPOINT_INVALID", `${file}: format is ${String(json.format)}; this version knows 1`);
    }
    const kind = statSync(this.path, { throwIfNoEntry: false });
    const other = kind?.isDirectory() ? readdirSync(this.path).find((name) => !ours.test(name)) : undefined;
    if (kind && (!kind.isDirectory() || other !== undefined))
      throw new SdarError(
        "INVALID_OPTION",
        `run: ${this.path} exists and is no run${other === undefined ? "" : ` (it holds ${other})`}; give another folder`,
        { option: "run", value: this.path },
      );
    if (existsSync(join(this.path, "state")))
      throw new SdarError(
        "INVALID_OPTION",
        `run: ${this.path} has a state, but not the settings.json that it belongs to; give another folder`,
        { option: "run", value: this.path },
      );
    return undefined;
  }

  /** A folder to prepare in: two processes may begin at once. */
  make(): Fresh {
    const folder = this.#writing(() => {
      mkdirSync(this.path, { recursive: true });
      return mkdtempSync(join(this.path, "begin-"));
    });
    return { folder, model: join(folder, "model"), samples: join(folder, "samples.bin") };
  }

  /** Makes it the run's. Throws INVALID_OPTION where another run was faster. */
  begin({ folder, model, samples }: Fresh, record: RunRecord): void {
    if (this.record()) throw this.#begun();
    this.#writing(() => {
      rmSync(this.model, { recursive: true, force: true });
      renameSync(model, this.model);
      renameSync(samples, this.samples);
    });
    this.replace("settings.json", `${JSON.stringify(record, null, 2)}\n`);
    // Of processes that were killed, or are too late.
    for (const name of readdirSync(this.path))
      if (name.startsWith("begin-") && join(this.path, name) !== folder)
        rmSync(join(this.path, name), { recursive: true, force: true });
  }

  /** What is to be told where preparing fails. */
  failed({ folder }: Fresh, error: unknown): unknown {
    return existsSync(folder) ? error : this.#begun();
  }

  #begun(): SdarError {
    return new SdarError("INVALID_OPTION", `run: another run has begun in ${this.path} meanwhile`, {
      option: "run",
      value: this.path,
    });
  }

  /** Removes what was prepared in, and the run's folder where nothing came of it. */
  remove({ folder }: Fresh): void {
    try {
      rmSync(folder, { recursive: true, force: true });
      rmdirSync(this.path);
    } catch {
      // It holds a run.
    }
  }

  /** Writes a file whole or not at all. */
  replace(name: string, text: string): void {
    const file = join(this.path, name);
    this.#writing(() => {
      writeFileSync(`${file}.partial`, text, { flush: true } as object);
      renameSync(`${file}.partial`, file);
    });
  }

  /** What was logged of the first `steps` steps. */
  entries(steps: number): LogEntry[] {
    const text = readOptional(join(this.path, "log.jsonl"), 2 ** 31 - 2) ?? "";
    const entries: LogEntry[] = [];
    for (const line of text.split("\n")) {
      try {
        const entry = JSON.parse(line) as LogEntry;
        if (entry.step <= steps) entries.push(entry);
      } catch {
        // The last line of a process that was killed.
      }
    }
    return entries;
  }

  /** Begins to log behind these. */
  openLog(entries: readonly LogEntry[]): void {
    this.replace("log.jsonl", entries.map((entry) => `${JSON.stringify(entry)}\n`).join(""));
    this.#log = this.#writing(() => openSync(join(this.path, "log.jsonl"), "a"));
  }

  log(entry: LogEntry): void {
    this.#writing(() => writeSync(this.#log as number, `${JSON.stringify(entry)}\n`));
  }

  closeLog(): void {
    if (this.#log !== undefined) closeSync(this.#log);
    this.#log = undefined;
  }

  #writing<T>(act: () => T): T {
    return writing(this.path, act);
  }
}

/** Refuses to go on with something else than was begun. Throws INVALID_OPTION naming it. */
export function checkSame(
  folder: string,
  begun: RunRecord,
  now: Pick<RunRecord, "settings" | "data" | "source">,
): void {
  const refuse = (option: string, before: string, given: string): never => {
    throw new SdarError(
      "INVALID_OPTION",
      `${option}: the run in ${folder} was begun with ${before}, not ${given}; give the same, or another folder as run`,
      { option },
    );
  };
  // As settings.json has them, without what is undefined.
  const settings = JSON.parse(JSON.stringify(now.settings)) as Settings;
  for (const name of Object.keys({ ...settings, ...begun.settings }) as (keyof Settings)[]) {
    const [before, given] = [begun.settings[name], settings[name]];
    if (!isDeepStrictEqual(before, given))
      refuse(name, JSON.stringify(before) ?? "none", JSON.stringify(given) ?? "none");
  }
  // Paths may change, contents may not.
  const contents = (data: RunRecord["data"]) => data.map(([, hash]) => hash);
  if (!isDeepStrictEqual(contents(begun.data), contents(now.data)))
    refuse("data", `other contents: ${begun.data.map(([file]) => file).join(", ")}`, "what is there now");
  const changed = Object.keys({ ...begun.source, ...now.source }).find(
    (name) => begun.source[name] !== now.source[name],
  );
  if (changed !== undefined)
    refuse(settings.kind === "adapt" ? "from" : "tokenizer", `another ${changed}`, "the one of now");
}
