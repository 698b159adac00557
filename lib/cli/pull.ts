// sdar pull: a checkpoint from the Hugging Face hub into the local cache.
import { Command } from "commander";
import { pullModel } from "../hub.js";
import { ProgressLine } from "./progress.js";
import { onInterrupt } from "./signals.js";
import { isTerminal, printable, sizeOf } from "./terminal.js";

interface Flags {
  revision: string;
  dryRun?: boolean;
  json?: boolean;
}

export function pullCommand(): Command {
  return new Command("pull")
    .description("Downloads a checkpoint into the local Hugging Face cache, and prints its folder")
    .argument("<model>", "hub id: org/name")
    .option("--revision <name>", "branch, tag or commit", "main")
    .option("--dry-run", "list the files and what is missing of them, and download nothing")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      `
Fetched are configuration, tokenizer, template, licence and *.safetensors; sizes and checksums are
compared. What broke off goes on with the same command.

Environment:
  HF_HOME, HF_HUB_CACHE  where the cache is
  HF_TOKEN               who asks, for models that are private or gated
  HF_ENDPOINT            another hub

Examples:
  sdar pull JetLM/SDAR-1.7B-Chat
  sdar pull JetLM/SDAR-1.7B-Chat --dry-run
  sdar chat -m JetLM/SDAR-1.7B-Chat`,
    )
    .action(pull);
}

async function pull(id: string, { revision, dryRun, json }: Flags): Promise<void> {
  const interrupt = new AbortController();
  const { signal } = interrupt;
  onInterrupt(() => interrupt.abort(), ["SIGINT", "SIGTERM", "SIGHUP"]);
  const line = new ProgressLine(!json);
  const rate = new Rate();
  const { HF_ENDPOINT: endpoint, HF_TOKEN: token } = process.env;
  try {
    const pulled = await pullModel(id, {
      ...(endpoint && { endpoint }),
      ...{ token, revision, dryRun: dryRun === true, signal },
      onProgress: ({ file, done, total }) => {
        rate.add(done);
        line.show(() => `${printable(file)}  ${sizeOf(done)} of ${sizeOf(total)}  ${rate.describe(total)}`);
      },
    });
    line.clear();
    const { folder, files, bytes, missing } = pulled;
    if (json) process.stdout.write(`${JSON.stringify(pulled, null, 2)}\n`);
    else if (dryRun) {
      const width = Math.max(...files.map(({ name }) => name.length));
      const rows = files.map(
        (file) =>
          `${file.name.padEnd(width)}  ${sizeOf(file.size).padStart(9)}  ${file.missing > 0 ? "missing" : "there"}\n`,
      );
      process.stdout.write(`${rows.map(printable).join("")}${sizeOf(bytes)}, ${sizeOf(missing)} of them missing\n`);
    } else {
      if (isTerminal(process.stderr)) process.stderr.write(`${sizeOf(bytes)} in ${files.length} files\n`);
      process.stdout.write(`${folder}\n`);
    }
  } catch (error) {
    line.clear();
    if (!signal.aborted) throw error;
    process.stderr.write("interrupted: the same command goes on from here\n");
    process.exitCode = 130;
  }
}

/** Bytes per second since the first that were counted. */
class Rate {
  #first: { at: number; done: number } | undefined;
  #done = 0;

  add(done: number): void {
    this.#first ??= { at: performance.now(), done };
    this.#done = done;
  }

  describe(total: number): string {
    if (!this.#first) return "";
    const { at, done } = this.#first;
    const perSecond = (this.#done - done) / ((performance.now() - at) / 1000);
    if (!(perSecond > 0)) return "";
    const left = (total - this.#done) / perSecond;
    return `${sizeOf(perSecond)}/s  ${left < 90 ? `${left.toFixed(0)} s` : `${(left / 60).toFixed(0)} min`} left`;
  }
}
