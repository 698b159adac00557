// Where a checkpoint lies, and its small JSON files. Never downloads anything.
import { closeSync, constants, fstatSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { type ErrorCode, SdarError } from "./errors.js";

/** Root of this package, from lib/ and from dist/ alike. */
export const packageRoot = fileURLToPath(new URL("..", import.meta.url));

/** Name of the model that ships with this package. */
export const shippedModel = "sdar-nano";

/** Folder of the shipped model. */
export const shippedModelPath = (): string => join(packageRoot, "models", shippedModel);

/**
 * The folder that `pathOrId` means: the shipped model's name, a folder, or `org/name` in the local Hugging Face cache.
 * Throws MODEL_NOT_FOUND, which says where it looked and how to get the model.
 */
export function findCheckpoint(pathOrId: string): string {
  if (pathOrId === shippedModel) return shippedModelPath();
  const folder = resolve(pathOrId);
  const kind = statSync(folder, { throwIfNoEntry: false });
  if (kind?.isDirectory()) return folder;
  if (kind) {
    throw new SdarError("MODEL_NOT_FOUND", `${folder} is a file; give the folder that holds config.json`);
  }
  if (!/^[\w.-]+\/[\w.-]+$/.test(pathOrId) || pathOrId.startsWith(".")) {
    throw new SdarError(
      "MODEL_NOT_FOUND",
      `no folder ${folder}; give a checkpoint's folder, "${shippedModel}" or a hub id`,
    );
  }
  const cache = hubFolder(pathOrId);
  const snapshot = findSnapshot(cache);
  if (snapshot) return snapshot;
  throw new SdarError(
    "MODEL_NOT_FOUND",
    `no model ${pathOrId}: there is no folder ${folder} and no snapshot under ${cache}; ` +
      `nothing is downloaded for you: get it with "sdar pull ${pathOrId}"`,
  );
}

/** Where the local Hugging Face cache has the model `org/name`, if it has it. */
export const hubFolder = (id: string): string => join(hubCache(), `models--${id.replace("/", "--")}`);

function hubCache(): string {
  const { HF_HUB_CACHE, HF_HOME } = process.env;
  if (HF_HUB_CACHE) return HF_HUB_CACHE;
  const home = HF_HOME || join(userCache() ?? ".cache", "huggingface");
  return join(home, "hub");
}

/** The folder for caches of this user; undefined without a home, as that of a service may be. */
export const userCache = (): string | undefined => userFolder("XDG_CACHE_HOME", ".cache");

/** The folder for what programs remember of this user; undefined without a home. */
export const userState = (): string | undefined => userFolder("XDG_STATE_HOME", join(".local", "state"));

function userFolder(variable: string, inHome: string): string | undefined {
  const given = process.env[variable];
  if (given && isAbsolute(given)) return given;
  try {
    const home = homedir();
    return isAbsolute(home) ? join(home, inHome) : undefined;
  } catch {
    return undefined; // neither HOME nor an entry in passwd
  }
}

/** The snapshot that refs/main names, else the newest one; undefined when none holds a config.json. */
function findSnapshot(cache: string): string | undefined {
  const snapshots = join(cache, "snapshots");
  const main = readOptional(join(cache, "refs", "main"), 1024)?.trim();
  const names = main ? [main] : listFolder(snapshots);
  return names
    .map((name) => join(snapshots, name))
    .filter((folder) => statSync(join(folder, "config.json"), { throwIfNoEntry: false }))
    .sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0];
}

function listFolder(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Bytes of a checkpoint's configuration file at most; other kinds have their own limit. */
const maxConfigBytes = 2 ** 24;

/**
 * A text file, undefined when there is none; FILE_UNREADABLE when it is there and cannot be read, is longer than `maxBytes`
 * or no regular file: a pipe or a device would be read for ever.
 */
export function readOptional(file: string, maxBytes = maxConfigBytes): string | undefined {
  try {
    return readRegular(file, maxBytes);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new SdarError("FILE_UNREADABLE", `cannot read ${file}: ${(cause as Error).message}`, { cause });
  }
}

function readRegular(file: string, maxBytes: number): string {
  // Without O_NONBLOCK the open itself waits for a pipe's writer.
  const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const status = fstatSync(fd);
    if (!status.isFile()) throw new Error("it is no regular file");
    if (status.size > maxBytes) throw new Error(`it has ${status.size} bytes; at most ${maxBytes} are allowed`);
    // A byte more than it should have: it may grow meanwhile, and files of /proc say 0.
    const bytes = Buffer.alloc(Math.min(maxBytes, status.size === 0 ? maxBytes : status.size) + 1);
    let size = 0;
    for (let read = -1; read !== 0 && size < bytes.length; size += read) {
      read = readSync(fd, bytes, size, bytes.length - size, null);
    }
    if (size > maxBytes) throw new Error(`it has more than ${maxBytes} bytes`);
    return bytes.toString("utf8", 0, size);
  } finally {
    closeSync(fd);
  }
}

/** A JSON object from a file, undefined when there is no such file; `invalid` is the code of an error that names the file. */
export function readJson(file: string, invalid: ErrorCode, maxBytes?: number): Record<string, unknown> | undefined {
  const text = readOptional(file, maxBytes);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    // Some editors begin a file with a byte order mark.
    value = JSON.parse(text.replace(/^\ufeff/, ""));
  } catch (cause) {
    throw new SdarError(invalid, `${file} is not valid JSON: ${(cause as Error).message}`, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new SdarError(invalid, `${file} must hold a JSON object`);
  }
  return value as Record<string, unknown>;
}
