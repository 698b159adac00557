// The queue in Redis, by BullMQ, which is loaded on use.
import type { Job, Queue } from "bullmq";
import { invalidOption, SdarError } from "../errors.js";
import { optionalPackage } from "../optional-package.js";
import { type JobData, linesOf } from "./lines.js";

export type Bull = typeof import("bullmq");

export interface QueuePlace {
  /** `redis://…`, `rediss://…`, or the path of a Unix socket */
  redis: string;
  queue: string;
}

/** Throws FILE_NOT_FOUND where BullMQ or its Redis client is not installed. */
export async function loadBull(): Promise<Bull> {
  const missing = (name: string) =>
    `queues need the package ${name}, which is not installed: npm install bullmq ioredis`;
  await optionalPackage(() => import("ioredis"), missing("ioredis"));
  return optionalPackage(() => import("bullmq"), missing("bullmq"));
}

/** Throws INVALID_OPTION. */
export function checkPlace({ redis, queue }: QueuePlace): void {
  if (!/^(rediss?:\/\/|\/)./.test(redis))
    throw invalidOption("redis", redis, "redis://host:port, rediss://…, or the path of a Unix socket");
  if (queue === "" || queue.includes(":")) throw invalidOption("queue", queue, "a name without colons");
}

/** `waits`: whether commands wait for a Redis that is away; else they fail. */
export function connection({ redis }: QueuePlace, waits: boolean) {
  return {
    url: redis,
    maxRetriesPerRequest: waits ? null : 1,
    enableOfflineQueue: true,
    retryStrategy: (times: number) => (!waits && times > 3 ? null : Math.min(50 * times, 2000)),
  };
}

/** Opens the queue for what `act` does, and fails where Redis does not answer. */
export async function withQueue<T>(place: QueuePlace, act: (queue: Queue<JobData>) => Promise<T>): Promise<T> {
  checkPlace(place);
  const { Queue } = await loadBull();
  const queue: Queue<JobData> = new Queue(place.queue, { connection: connection(place, false) });
  let problem: unknown;
  queue.on("error", (error) => {
    problem = error;
  });
  try {
    return await act(queue);
  } catch (cause) {
    if (cause instanceof SdarError) throw cause;
    const { message } = (problem ?? cause) as Error;
    throw new SdarError("FILE_UNREADABLE", `Redis at ${place.redis.replace(/\/\/[^@/]*@/, "//")}: ${message}`, {
      cause,
    });
  } finally {
    await queue.close().catch(() => {});
  }
}

/** The highest first: BullMQ's 1 is the engine's 100. */
export const bullPriority = (priority: number): number => 101 - Math.max(-100, Math.min(100, priority));

export interface EnqueueOptions {
  /** of lines that have none, -100 to 100 */
  priority: number;
  /** runs of a job before it is dead */
  attempts: number;
  /** milliseconds before the second run; doubled before each further one */
  backoffMs: number;
}

const batchLines = 500;

/** Puts each line into the queue, once however often it is called; returns how many there are. */
export function enqueue(file: string, place: QueuePlace, options: EnqueueOptions): Promise<number> {
  return withQueue(place, async (queue) => {
    let count = 0;
    let batch: Parameters<typeof queue.addBulk>[0] = [];
    const send = async () => {
      await queue.addBulk(batch);
      count += batch.length;
      batch = [];
    };
    const { attempts, backoffMs: delay } = options;
    for await (const { jobId, priority = options.priority, ...data } of linesOf(file)) {
      const opts = { jobId, priority: bullPriority(priority), attempts, backoff: { type: "exponential", delay } };
      batch.push({ name: "generate", data, opts });
      if (batch.length === batchLines) await send();
    }
    if (batch.length > 0) await send();
    return count;
  });
}

export interface DeadJob {
  job: string;
  file: string;
  line: number;
  attempts: number;
  reason: string;
}

/** Jobs that are not tried again, in the order in which they died. */
export async function* deadJobs(queue: Queue<JobData>): AsyncGenerator<DeadJob> {
  const size = 500;
  for (let start = 0; ; start += size) {
    const jobs = (await queue.getJobs(["failed"], start, start + size - 1, true)) as Job<JobData>[];
    for (const { id = "", data, attemptsMade, failedReason } of jobs)
      yield { job: id, file: data.file, line: data.line, attempts: attemptsMade, reason: failedReason };
    if (jobs.length < size) return;
  }
}
