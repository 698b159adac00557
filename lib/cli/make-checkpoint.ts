// sdar make-checkpoint: a checkpoint of a known shape with random weights, to measure loading and generation with.
import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { Command } from "commander";
import { type NativeWriteOptions, writeCheckpoint } from "../bench/binding.js";
import { oneOf, whole } from "../bench/flags.js";
import { isTerminal } from "./terminal.js";

interface Flags {
  shape: string;
  layers: number;
  out: string;
  dtype: NativeWriteOptions["dtype"];
  seed: number;
  force?: boolean;
  json?: boolean;
}

export function makeCheckpointCommand(): Command {
  return new Command("make-checkpoint")
    .description("Writes a checkpoint with random weights (and no tokenizer): it generates nonsense at full speed")
    .requiredOption("--shape <name>", "sdar-nano, sdar-1.7b, sdar-4b, sdar-8b, sdar-30b-a3b")
    .requiredOption("--out <folder>", "folder to be made")
    .option("--layers <n>", "layers of the shape to keep (default: all)", whole(1), 0)
    .option("--dtype <type>", "bf16, f32", oneOf("bf16", "f32"), "bf16")
    .option("--seed <n>", "the same seed gives the same weights", whole(0), 1)
    .option("--force", "replace a checkpoint that is there")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  sdar make-checkpoint --shape sdar-1.7b --out ./random --layers 4")
    .action(make);
}

async function make(flags: Flags): Promise<void> {
  const { shape, layers, dtype, seed, force = false, json } = flags;
  const folder = resolve(flags.out);
  const live = !json && isTerminal(process.stderr);
  const began = performance.now();
  const written = await writeCheckpoint(
    { folder, shape, layers, dtype, randomSeed: seed, overwrite: force, threads: availableParallelism() },
    (done, total) => {
      if (live)
        process.stderr.write(`\r${((100 * done) / total).toFixed(0)} % of ${(total / 1e9).toFixed(1)} GB\x1b[K`);
    },
  );
  if (live) process.stderr.write("\r\x1b[K");
  const seconds = (performance.now() - began) / 1000;
  if (json) process.stdout.write(`${JSON.stringify({ folder, shape, dtype, ...written, seconds })}\n`);
  else {
    const size = `${(written.parameters / 1e6).toFixed(0)} M parameters, ${(written.bytes / 1e9).toFixed(2)} GB`;
    process.stdout.write(`${folder}: ${size} in ${written.files} file(s), ${seconds.toFixed(1)} s\n`);
  }
}
