// Lines of a JSONL file, as they are read; in the thread that prepares data, so reading may wait.
import type { Hash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { SdarError } from "../errors.js";
import { unreadable } from "./paths.js";

/** Bytes of a line: beyond them it is refused unread. */
export const maxLineBytes = 2 ** 25;
const chunkBytes = 2 ** 20;

export interface Line {
  /** from 1 */
  number: number;
  /** undefined: longer than maxLineBytes */
  bytes: Buffer | undefined;
}

/** All lines of a file, those of spaces alone passed over; every byte goes into `hash`. Throws FILE_NOT_FOUND, FILE_UNREADABLE. */
export function* linesOf(file: string, hash: Hash): Generator<Line> {
  const fd = open(file);
  try {
    let parts: Buffer[] = [];
    let length = 0;
    let number = 0;
    const take = (): Line | undefined => {
      number++;
      const bytes = length > maxLineBytes ? undefined : Buffer.concat(parts);
      parts = [];
      length = 0;
      return bytes?.every(isSpace) ? undefined : { number, bytes };
    };
    const add = (bytes: Buffer) => {
      length += bytes.length;
      if (length > maxLineBytes) parts = [];
      else if (bytes.length > 0) parts.push(bytes);
    };
    for (;;) {
      const chunk = Buffer.alloc(chunkBytes);
      const read = readSync(fd, chunk);
      if (read === 0) break;
      const bytes = chunk.subarray(0, read);
      hash.update(bytes);
      let start = 0;
      for (let end = bytes.indexOf(10); end >= 0; start = end + 1, end = bytes.indexOf(10, start)) {
        add(bytes.subarray(start, end));
        const line = take();
        if (line) yield line;
      }
      add(bytes.subarray(start));
    }
    const last = length > 0 ? take() : undefined;
    if (last) yield last;
  } catch (cause) {
    if (cause instanceof SdarError) throw cause;
    throw unreadable(file, cause as Error);
  } finally {
    closeSync(fd);
  }
}

const isSpace = (byte: number) => byte === 32 || (byte >= 9 && byte <= 13);

function open(file: string): number {
  try {
    return openSync(file, "r");
  } catch (cause) {
    throw unreadable(file, cause as Error);
  }
}
