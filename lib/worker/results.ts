// The file of results: a line for each job, never two, whenever the process ends.
import { spawnSync } from "node:child_process";
import { closeSync, createReadStream, fdatasync, fsyncSync, ftruncateSync, openSync, renameSync, write } from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { invalidOption, SdarError } from "../errors.js";

const writeBytes = promisify(write);
const sync = promisify(fdatasync);

/** A line of results; `job` is the id that Redis knows. */
export interface ResultLine {
  job: string;
  [name: string]: unknown;
}

interface Waiting {
  line: string;
  done: () => void;
  failed: (error: unknown) => void;
}

/** Appends lines, each synced to disk before anyone is told that it is there. One process writes to a file at a time. */
export class ResultsFile {
  readonly path: string;
  readonly #fd: number;
  readonly #jobs: Set<string>;
  #size: number;
  #waiting: Waiting[] = [];
  #writing: Promise<void> | undefined;

  private constructor(path: string, fd: number, jobs: Set<string>, size: number) {
    this.path = path;
    this.#fd = fd;
    this.#jobs = jobs;
    this.#size = size;
  }

  /**
   * Opens or makes the file, and cuts off a last line that broke off. Throws FILE_UNWRITABLE, DATA_INVALID for a line that is
   * no result, and INVALID_OPTION where another process has the file.
   */
  static async open(path: string): Promise<ResultsFile> {
    const fd = writing(path, () => openSync(path, "a+"));
    try {
      lock(path, fd);
      const jobs = new Set<string>();
      let size = 0;
      for await (const { job, end } of resultsOf(path)) {
        jobs.add(job);
        size = end;
      }
      writing(path, () => {
        ftruncateSync(fd, size);
        fsyncSync(fd);
        syncFolder(path);
      });
      return new ResultsFile(path, fd, jobs, size);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  get count(): number {
    return this.#jobs.size;
  }

  has(job: string): boolean {
    return this.#jobs.has(job);
  }

  /** False where the job has its line already. Lines that come while others are being written share a sync. */
  async append(result: ResultLine): Promise<boolean> {
    const { job } = result;
    if (this.#jobs.has(job)) return false;
    this.#jobs.add(job);
    try {
      await new Promise<void>((done, failed) => {
        this.#waiting.push({ line: `${JSON.stringify(result)}\n`, done, failed });
        this.#writing ??= this.#writeAll().finally(() => {
          this.#writing = undefined;
        });
      });
    } catch (cause) {
      this.#jobs.delete(job);
      throw new SdarError("FILE_UNWRITABLE", `${this.path}: cannot be written: ${(cause as Error).message}`, { cause });
    }
    return true;
  }

  async close(): Promise<void> {
    await this.#writing;
    closeSync(this.#fd);
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      try {
        const bytes = Buffer.from(batch.map(({ line }) => line).join(""));
        for (let at = 0; at < bytes.length; ) at += (await writeBytes(this.#fd, bytes, at)).bytesWritten;
        await sync(this.#fd);
        this.#size += bytes.length;
        for (const { done } of batch) done();
      } catch (error) {
        // Of a full disk, say: what is half there must not stand before the next line.
        try {
          ftruncateSync(this.#fd, this.#size);
        } catch {
          // It is cut off when the file is opened next.
        }
        for (const { failed } of batch) failed(error);
      }
    }
  }
}

/** Whole lines of a file of results, with the byte after each. */
export async function* resultsOf(path: string): AsyncGenerator<{ job: string; text: string; end: number }> {
  let rest: Buffer = Buffer.alloc(0);
  let end = 0;
  let number = 0;
  for await (const part of createReadStream(path, { highWaterMark: 2 ** 20 })) {
    rest = rest.length > 0 ? Buffer.concat([rest, part]) : part;
    let start = 0;
    for (let at = rest.indexOf(10); at >= 0; at = rest.indexOf(10, start)) {
      const text = rest.toString("utf8", start, at);
      end += at + 1 - start;
      start = at + 1;
      number++;
      yield { job: jobOf(text, `${path}:${number}`), text, end };
    }
    rest = rest.subarray(start);
  }
}

function jobOf(text: string, where: string): string {
  try {
    const { job } = JSON.parse(text) as { job?: unknown };
    if (typeof job === "string") return job;
  } catch {
    // told below
  }
  throw new SdarError("DATA_INVALID", `${where}: this is no line of a worker's results; give another file`);
}

/** Joins files of results, each job once, and the file whole or not at all; returns how many lines, and how many were double. */
export async function mergeResults(
  files: readonly string[],
  target: string,
): Promise<{ lines: number; double: number }> {
  const jobs = new Set<string>();
  let double = 0;
  const partial = `${target}.partial`;
  const fd = writing(partial, () => openSync(partial, "w"));
  try {
    for (const file of files) {
      for await (const { job, text } of readable(file)) {
        if (jobs.has(job)) double++;
        else await writeBytes(fd, Buffer.from(`${text}\n`));
        jobs.add(job);
      }
    }
    writing(target, () => {
      fsyncSync(fd);
      renameSync(partial, target);
      syncFolder(target);
    });
  } finally {
    closeSync(fd);
  }
  return { lines: jobs.size, double };
}

async function* readable(file: string) {
  try {
    yield* resultsOf(file);
  } catch (cause) {
    if (cause instanceof SdarError) throw cause;
    throw new SdarError("FILE_UNREADABLE", `cannot read ${file}: ${(cause as Error).message}`, { cause });
  }
}

/** A lock on the open file, which ends with the process however that ends. Node has no call for it; util-linux has. */
function lock(path: string, fd: number): void {
  const { status, error } = spawnSync("flock", ["-x", "-n", "3"], { stdio: ["ignore", "ignore", "ignore", fd] });
  if (error) throw new SdarError("FILE_UNWRITABLE", `${path}: cannot be locked: ${error.message}; install util-linux`);
  if (status !== 0) throw invalidOption("results", path, "another file: a worker that runs has this one");
}

/** So that the file's name is on disk, too. */
function syncFolder(path: string): void {
  const fd = openSync(dirname(path), "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function writing<T>(path: string, act: () => T): T {
  try {
    return act();
  } catch (cause) {
    throw new SdarError("FILE_UNWRITABLE", `${path}: cannot be written: ${(cause as Error).message}`, { cause });
  }
}
