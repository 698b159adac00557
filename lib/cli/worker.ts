// sdar worker: answers what a queue in Redis holds, and writes the answers into a file.
import { Command } from "commander";
import { shippedModel } from "../checkpoint.js";
import { Engine } from "../engine.js";
import { invalidOption } from "../errors.js";
import { checkPlace, deadJobs, loadBull, withQueue } from "../worker/queue.js";
import { mergeResults, ResultsFile } from "../worker/results.js";
import { work } from "../worker/worker.js";
import { type EngineFlags, engineOptions, withEngineFlags } from "./engine-flags.js";
import { defaultQueue, defaultRedis, whole } from "./queue-flags.js";
import { onInterrupt } from "./signals.js";
import { printable } from "./terminal.js";

interface Flags extends EngineFlags {
  model: string;
  redis: string;
  queue: string;
  results?: string;
  concurrency?: number;
  stalledMs: number;
  once?: boolean;
  dead?: boolean;
  retry?: boolean;
  json?: boolean;
  merge?: string;
}

export function workerCommand(): Command {
  const command = new Command("worker")
    .description("Answers the jobs of a queue in Redis and appends the answers to a file, each once")
    .argument("[files...]", "with --merge, files of results")
    .optionsGroup("Queue:")
    .option("--redis <url>", "redis://host:port or the path of a Unix socket (default: $REDIS_URL)", defaultRedis())
    .option("--queue <name>", "name of the queue", defaultQueue)
    .option("--results <file>", "JSON lines that answers are appended to; each worker has a file of its own")
    .option("--concurrency <n>", "jobs at a time (default: half as many again as --max-concurrent)", whole)
    .option("--stalled-ms <n>", "after which the jobs of a worker that is gone go to another", whole, 30_000)
    .option("--once", "end when nothing is left to do")
    .optionsGroup("Instead of working:")
    .option("--dead", "list the jobs that are not tried again, with file, line and reason")
    .option("--retry", "with --dead, put them back into the queue")
    .option("--json", "with --dead, print a JSON object a line")
    .option("--merge <out>", "join files of results into one, each job once")
    .optionsGroup("Model and machine:")
    .option("-m, --model <model>", "checkpoint folder, hub id in the local cache, or the shipped model", shippedModel);
  return withEngineFlags(command)
    .addHelpText(
      "after",
      "\nExamples:\n  sdar worker --queue night --results answers.jsonl\n  sdar worker --queue night --dead\n  sdar worker --merge all.jsonl answers-1.jsonl answers-2.jsonl",
    )
    .action(run);
}

async function run(files: string[], flags: Flags, command: Command): Promise<void> {
  if (flags.merge !== undefined) return merge(files, flags.merge, command);
  if (files.length > 0) command.error("error: files are for --merge");
  if (flags.dead) return dead(flags);
  if (flags.results === undefined) command.error("error: --results FILE is needed");
  const { model, redis, queue, stalledMs, maxConcurrent = 64 } = flags;
  const { concurrency = Math.ceil(1.5 * maxConcurrent), once = false } = flags;
  if (concurrency < 1) throw invalidOption("concurrency", concurrency, "an integer >= 1");
  if (stalledMs < 100) throw invalidOption("stalledMs", stalledMs, "an integer >= 100");
  checkPlace({ redis, queue });
  await loadBull();
  const stop = new AbortController();
  onInterrupt(() => {
    log("stopping: what runs is finished first; a second signal ends it now");
    stop.abort();
  }, ["SIGINT", "SIGTERM", "SIGHUP"]);
  const results = await ResultsFile.open(flags.results as string);
  try {
    if (results.count > 0) log(`${results.path} has ${results.count} answer(s) already`);
    await using engine = await Engine.load(model, engineOptions(flags));
    log(`waiting for jobs of ${queue}`);
    const { signal } = stop;
    const tally = await work({ engine, results, redis, queue, concurrency, stalledMs, once, signal, log });
    log(
      Object.entries(tally)
        .map(([name, count]) => `${count} ${name}`)
        .join(", "),
    );
  } finally {
    await results.close();
  }
}

const log = (message: string) => void process.stderr.write(`sdar: ${printable(message)}\n`);

async function merge(files: string[], target: string, command: Command): Promise<void> {
  if (files.length === 0) command.error("error: --merge needs files of results");
  const { lines, double } = await mergeResults(files, target);
  process.stdout.write(`${lines} line(s) in ${target}, ${double} left out as double\n`);
}

function dead({ redis, queue: name, retry, json }: Flags): Promise<void> {
  return withQueue({ redis, queue: name }, async (queue) => {
    let count = 0;
    for await (const job of deadJobs(queue)) {
      count++;
      const { file, line, attempts, reason } = job;
      const told = reason.startsWith(`${file}:${line}: `) ? reason : `${file}:${line}: ${reason}`;
      process.stdout.write(json ? `${JSON.stringify(job)}\n` : `${printable(told)} (${job.job}, ${attempts} run(s))\n`);
    }
    if (retry && count > 0) await queue.retryJobs({ state: "failed" });
    log(`${count} dead job(s)${retry ? ", put back into the queue" : ""}`);
  });
}
