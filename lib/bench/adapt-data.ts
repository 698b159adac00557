// Files of samples for sdar bench adapt, and what a sample costs in position-passes: rows that go forward and backward.
import { closeSync, mkdirSync, openSync, renameSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { setImmediate as others } from "node:timers/promises";
import { readJson } from "../checkpoint.js";
import { SdarError } from "../errors.js";
import { isAborted } from "../signals.js";
import { loadText } from "../text/files.js";
import { type Sample, SampleMaker } from "../train/samples.js";
import type { TaskSample } from "./tasks.js";

/** Characters that are written at once. */
const chunk = 2 ** 18;

/** A sample as the training commands read it. */
const lineOf = ({ prompt, answer }: Pick<TaskSample, "prompt" | "answer">): string =>
  JSON.stringify({
    messages: [
      { role: "user", content: prompt },
      { role: "assistant", content: answer },
    ],
  });

/** Writes samples until `enough` of one, which is written too, says so: the file is there whole or not at all. Rejects with ABORTED. */
export async function writeSamples(
  file: string,
  samples: Iterator<TaskSample, never>,
  enough: (line: string, count: number) => boolean,
  signal?: AbortSignal,
): Promise<void> {
  mkdirSync(dirname(file), { recursive: true });
  const fd = openSync(`${file}.partial`, "w");
  try {
    let text = "";
    for (let [done, count] = [false, 1]; !done; count++) {
      const line = lineOf(samples.next().value);
      done = enough(line, count);
      text += `${line}\n`;
      if (text.length < chunk && !done) continue;
      writeSync(fd, text);
      text = "";
      await others();
      if (isAborted(signal))
        throw new SdarError("ABORTED", `aborted while ${file} was written; the same call begins it again`);
    }
  } finally {
    closeSync(fd);
  }
  renameSync(`${file}.partial`, file);
}

interface RowOptions {
  recipe: "sdar" | "views";
  views: number;
  blocks: readonly number[];
}

/** Rows of a sample in a batch, mean over the lengths of a block: those of native/train/recipe.h. */
function rowsOf(sample: Sample, { recipe, views, blocks }: RowOptions): number {
  const answer = sample.findIndex((token) => token % 2 === 1);
  const rows = blocks.map((block) => {
    const begin = Math.floor(answer / block) * block;
    const end = Math.ceil(sample.length / block) * block;
    return recipe === "sdar" ? 2 * end : end - block + views * (end - begin);
  });
  return rows.reduce((sum, each) => sum + each, 0) / rows.length;
}

/** Counts the rows of lines as adapt() makes samples of them, with the tokenizer of `folder`. */
export function rowCounter(folder: string, options: RowOptions): (line: string) => number {
  const { tokenizer, template } = loadText(folder);
  const ends = [readJson(join(folder, "generation_config.json"), "CONFIG_INVALID")?.eos_token_id ?? []].flat();
  const maker = new SampleMaker(tokenizer, template, ends as number[]);
  return (line) => maker.make(Buffer.from(line)).reduce((sum, sample) => sum + rowsOf(sample, options), 0);
}
