// Lines of a file of requests: which job each is, whatever it says.
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { basename } from "node:path";
import { createInterface } from "node:readline";
import { invalidOption, SdarError } from "../errors.js";
import type { GenerateRequest } from "../types.js";

/** What a job carries: the line as it is, so that a worker can say what is wrong with it. */
export interface JobData {
  file: string;
  /** from 1 */
  line: number;
  text: string;
}

export interface JobLine extends JobData {
  jobId: string;
  /** of the line; undefined where it has none, or says nothing that can be read */
  priority: number | undefined;
}

/** Lines that are not empty. Throws FILE_NOT_FOUND, FILE_UNREADABLE, and DATA_INVALID where two lines have one `id`. */
export async function* linesOf(path: string): AsyncGenerator<JobLine> {
  const file = basename(path);
  const input = createReadStream(path);
  const seen = new Map<string, number>();
  let line = 0;
  try {
    for await (const text of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
      line++;
      if (text.trim() === "") continue;
      const { id, priority } = hints(text);
      const jobId = id === undefined ? lineId(line, text) : `id-${encodeURIComponent(id)}`;
      const before = id === undefined ? undefined : seen.get(jobId);
      if (before !== undefined)
        throw new SdarError("DATA_INVALID", `${file}:${line}: line ${before} has the id ${JSON.stringify(id)}, too`);
      if (id !== undefined) seen.set(jobId, line);
      yield { file, line, text, jobId, priority };
    }
  } catch (cause) {
    if (cause instanceof SdarError) throw cause;
    const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    const message = `cannot read ${path}: ${(cause as Error).message}`;
    throw new SdarError(missing ? "FILE_NOT_FOUND" : "FILE_UNREADABLE", message, { cause });
  } finally {
    input.destroy();
  }
}

const lineId = (line: number, text: string) =>
  `line-${line}-${createHash("sha256").update(text).digest("hex").slice(0, 24)}`;

/** What is needed before a worker judges the line. */
function hints(text: string): { id?: string; priority?: number } {
  const { id, priority } = objectOf(text) ?? {};
  return {
    ...((typeof id === "string" && id !== "" && id.length <= 512) || Number.isSafeInteger(id)
      ? { id: String(id) }
      : {}),
    ...(Number.isSafeInteger(priority) && { priority: priority as number }),
  };
}

function objectOf(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

/** The request of a line and its `id`. Throws INVALID_OPTION for what is no object of JSON; the engine judges the rest. */
export function requestOf(text: string): { id: unknown; request: GenerateRequest } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new SdarError("INVALID_OPTION", `it is no JSON: ${(cause as Error).message}`, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw invalidOption("line", value, "a JSON object with prompt or messages");
  const { id, ...request } = value as { id?: unknown };
  if (id !== undefined && !(typeof id === "string" && id !== "" && id.length <= 512) && !Number.isSafeInteger(id))
    throw invalidOption("id", id, "a string of 1 to 512 characters, or an integer");
  return { id, request: request as GenerateRequest };
}
