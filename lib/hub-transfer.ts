// One file of a hub into the cache: goes on where it broke off, and gets its name only when its contents are right.
//
// @huggingface/hub lists files, and has a download into the cache too; but that begins anew each time, compares no checksum,
// and ends at the first connection that breaks. For weights of gigabytes that will not do.
import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { describe } from "./errors.js";
import { failed, type HubSettings, hubFetch, PassingError, persist } from "./hub-fetch.js";

export interface RemoteFile {
  /** name in the repository's root */
  name: string;
  /** in bytes */
  size: number;
  /** SHA-256 of a file in LFS, else git's SHA-1 of the blob; the name of the file in the cache */
  oid: string;
  lfs: boolean;
}

/** Bytes of a file that are there already: of a whole one all, of one that broke off its beginning. */
export async function bytesThere(blob: string, { size }: RemoteFile): Promise<number> {
  const whole = await sizeOf(blob);
  if (whole === size) return size;
  return Math.min(size, (await sizeOf(partOf(blob))) ?? 0);
}

/** As Python's huggingface_hub calls it. */
const partOf = (blob: string) => `${blob}.incomplete`;

async function sizeOf(file: string): Promise<number | undefined> {
  return stat(file).then(
    ({ size }) => size,
    () => undefined,
  );
}

/** Fetches what is missing. `onBytes` is told how many bytes there are. Throws DOWNLOAD_FAILED, MODEL_NOT_FOUND. */
export async function transfer(
  hub: HubSettings,
  url: string,
  file: RemoteFile,
  blob: string,
  onBytes: (bytes: number) => void,
): Promise<void> {
  if ((await sizeOf(blob)) === file.size) return onBytes(file.size);
  const part = partOf(blob);
  // Written by position: two processes that fetch the same file write the same bytes to the same places.
  const out = await open(part, (await sizeOf(part)) === undefined ? "w+" : "r+");
  try {
    let have = Math.min((await out.stat()).size, file.size);
    let before = have;
    const attempt = async () => {
      have = await fetchRest(hub, url, file, out, have, (bytes) => {
        have = bytes;
        onBytes(bytes);
      });
    };
    const cameFurther = () => {
      const further = have > before;
      before = have;
      return further;
    };
    if (have < file.size) await persist(hub, attempt, cameFurther);
    await out.truncate(file.size);
    await out.sync();
  } finally {
    await out.close();
  }
  const found = await hashOf(part, file);
  if (found !== file.oid) {
    // It would be wrong for ever.
    await rm(part, { force: true });
    throw failed(
      `${file.name} has the wrong checksum, ${found} in the place of ${file.oid}; it was removed, try again`,
    );
  }
  await rename(part, blob);
}

/** From byte `from` on; how many bytes there are at the end: all of them. */
async function fetchRest(
  hub: HubSettings,
  url: string,
  { name, size }: RemoteFile,
  out: FileHandle,
  from: number,
  onBytes: (bytes: number) => void,
): Promise<number> {
  const controller = new AbortController();
  const abort = () => controller.abort();
  hub.signal?.addEventListener("abort", abort, { once: true });
  const stall = setTimeout(abort, hub.stallMs);
  let at = from;
  try {
    // Compressed bytes have other positions.
    const headers = { "accept-encoding": "identity", ...(from > 0 && { range: `bytes=${from}-` }) };
    const response = await hubFetch(hub, url, { headers, signal: controller.signal });
    const start = startOf(response, from, size);
    if (start === undefined) {
      await response.body?.cancel();
      await out.truncate(0);
      onBytes(0);
      throw new PassingError(`${name}: the hub does not go on at byte ${from}`);
    }
    at = start;
    if (start < from) onBytes(start);
    for await (const chunk of response.body ?? []) {
      stall.refresh();
      if (at + chunk.length > size) throw failed(`${name} is longer than the ${size} bytes that the hub's list says`);
      await out.write(chunk, 0, chunk.length, at);
      at += chunk.length;
      onBytes(at);
    }
  } catch (error) {
    hub.signal?.throwIfAborted();
    if (controller.signal.aborted) throw new PassingError(`${name}: nothing came for ${hub.stallMs / 1000} s`);
    // A write that fails has the system's own code, and will fail again.
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (error instanceof TypeError || ["ECONNRESET", "UND_ERR_SOCKET"].includes(code)) {
      throw new PassingError(
        `${name} broke off after ${at} of ${size} bytes: ${describe((error as Error).cause ?? error)}`,
      );
    }
    throw error;
  } finally {
    clearTimeout(stall);
    hub.signal?.removeEventListener("abort", abort);
  }
  if (at < size) throw new PassingError(`${name} ends after ${at} of the ${size} bytes that the hub's list says`);
  return at;
}

/** Where the body begins; undefined where it is not what was asked for. */
function startOf({ status, headers }: Response, from: number, size: number): number | undefined {
  if (status === 200) return 0;
  const [, first, all] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "") ?? [];
  const fits = status === 206 && Number(first) === from && (all === "*" || Number(all) === size);
  return fits ? from : undefined;
}

async function hashOf(path: string, { lfs, size }: RemoteFile): Promise<string> {
  const hash: Hash = lfs ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) hash.update(chunk);
  return hash.digest("hex");
}
