// Where packed weights are kept, and how much of them.
import { join, resolve } from "node:path";
import { userCache } from "./checkpoint.js";
import { invalidOption } from "./errors.js";

/** Where packed weights are kept; "" for nowhere, also where there is no home. */
export function cacheFolder(weightCache: boolean | string): string {
  if (weightCache === false) return "";
  if (weightCache !== true) return resolve(weightCache);
  const { SDAR_CACHE_DIR } = process.env;
  if (SDAR_CACHE_DIR) return resolve(SDAR_CACHE_DIR);
  const cache = userCache();
  return cache === undefined ? "" : join(cache, "sdar-engine");
}

/** How much is kept there, in bytes. */
export function cacheBytes(given: number | undefined): number {
  if (given !== undefined) return given;
  const { SDAR_CACHE_BYTES } = process.env;
  if (!SDAR_CACHE_BYTES) return 64 * 2 ** 30;
  const bytes = Number(SDAR_CACHE_BYTES);
  if (!Number.isSafeInteger(bytes) || bytes < 0)
    throw invalidOption("SDAR_CACHE_BYTES", SDAR_CACHE_BYTES, "a number of bytes");
  return bytes;
}
