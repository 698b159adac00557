// sdar enqueue: puts the lines of a file into a queue in Redis.
import { Command } from "commander";
import { invalidOption } from "../errors.js";
import { enqueue } from "../worker/queue.js";
import { defaultQueue, defaultRedis, whole } from "./queue-flags.js";

interface Flags {
  redis: string;
  queue: string;
  priority: number;
  attempts: number;
  backoffMs: number;
}

export function enqueueCommand(): Command {
  return new Command("enqueue")
    .description("Puts each line of a file of requests into a queue in Redis, once however often it is run")
    .argument("<file>", 'JSON lines: a request each, such as {"id":"a1","prompt":"31 x 7","maxTokens":32}')
    .option("--redis <url>", "redis://host:port or the path of a Unix socket (default: $REDIS_URL)", defaultRedis())
    .option("--queue <name>", "name of the queue", defaultQueue)
    .option("--priority <n>", "of lines that have none, -100 to 100, higher goes first", whole, 0)
    .option("--attempts <n>", "runs of a job before it is dead", whole, 5)
    .option("--backoff-ms <n>", "wait before the second run; doubled before each further one", whole, 1000)
    .addHelpText("after", "\nExample:\n  sdar enqueue requests.jsonl --queue night")
    .action(run);
}

async function run(file: string, { redis, queue, priority, attempts, backoffMs }: Flags): Promise<void> {
  if (priority < -100 || priority > 100) throw invalidOption("priority", priority, "an integer from -100 to 100");
  if (attempts < 1) throw invalidOption("attempts", attempts, "an integer >= 1");
  if (backoffMs < 0) throw invalidOption("backoffMs", backoffMs, "an integer >= 0");
  const count = await enqueue(file, { redis, queue }, { priority, attempts, backoffMs });
  process.stdout.write(`${count} job(s) of ${file} are in ${queue}\n`);
}
