// What the safetensors files of a checkpoint say about themselves: names, types and shapes of tensors. Reads headers alone.
// The checks are those of native/model/safetensors.cc. Format: https://github.com/huggingface/safetensors
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { readJson } from "./checkpoint.js";
import { SdarError } from "./errors.js";

/** Of all files together. */
const maxHeaderBytes = 2 ** 25;
const maxIndexBytes = 2 ** 25;
const maxShards = 2048;
const maxDimensions = 64;

/** Bytes of an element; those of types that no weight can have are not checked. */
const elementBytes: Record<string, number | undefined> = { F32: 4, F16: 2, BF16: 2 };

export interface StoredTensor {
  name: string;
  /** as the file says it, such as `BF16` */
  dtype: string;
  shape: number[];
  bytes: number;
  /** name of the file */
  file: string;
}

export interface StoredFile {
  name: string;
  bytes: number;
}

/**
 * The tensors of model.safetensors, else of the shards that model.safetensors.index.json names. Throws FILE_NOT_FOUND,
 * FILE_UNREADABLE, CHECKPOINT_INVALID or CHECKPOINT_TRUNCATED, naming file and tensor.
 */
export function readTensors(folder: string): { files: StoredFile[]; tensors: StoredTensor[] } {
  const single = join(folder, "model.safetensors");
  const index = `${single}.index.json`;
  const there = statSync(single, { throwIfNoEntry: false }) !== undefined;
  const map = there ? undefined : readJson(index, "CHECKPOINT_INVALID", maxIndexBytes)?.weight_map;
  if (!there && statSync(index, { throwIfNoEntry: false }) === undefined) {
    throw new SdarError("FILE_NOT_FOUND", `${folder}: has no model.safetensors and no model.safetensors.index.json`);
  }
  const shards = there ? [basename(single)] : shardsOf(map, index);
  const tensors = new Map<string, StoredTensor>();
  const files: StoredFile[] = [];
  let left = maxHeaderBytes;
  for (const shard of shards) {
    const path = join(folder, shard);
    const { header, headerBytes, dataBytes, bytes } = readHeader(path, left);
    left -= headerBytes;
    files.push({ name: shard, bytes });
    for (const tensor of tensorsOf(header, dataBytes, path)) {
      const other = tensors.get(tensor.name);
      if (other) throw invalid(path, `tensor ${shown(tensor.name)} is also in ${join(folder, other.file)}`);
      tensors.set(tensor.name, tensor);
    }
  }
  if (!there) {
    for (const [name, shard] of Object.entries(map as Record<string, string>)) {
      if (tensors.get(name)?.file !== shard)
        throw invalid(index, `tensor ${shown(name)} is not in the shard "${shard}"`);
    }
  }
  return { files, tensors: [...tensors.values()] };
}

function shardsOf(map: unknown, index: string): string[] {
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw invalid(index, "weight_map is missing or not an object");
  }
  const shards = new Set<string>();
  for (const [name, shard] of Object.entries(map)) {
    // A file beside the index, never a path to somewhere else.
    if (typeof shard !== "string" || !/^[^/\\\0]+$/.test(shard) || shard === "." || shard === "..") {
      const what = JSON.stringify(shard)?.slice(0, 100);
      throw invalid(index, `tensor ${shown(name)} is in ${what}; expected the name of a file in the same folder`);
    }
    shards.add(shard);
  }
  if (shards.size === 0) throw invalid(index, "weight_map names no tensor");
  if (shards.size > maxShards) {
    throw invalid(index, `weight_map names ${shards.size} shards; at most ${maxShards} are allowed`);
  }
  const folder = index.slice(0, -basename(index).length);
  for (const shard of shards) {
    if (statSync(join(folder, shard), { throwIfNoEntry: false })) continue;
    throw new SdarError("FILE_NOT_FOUND", `${index}: names the shard "${shard}", which is missing`);
  }
  return [...shards].sort();
}

/** Layout of a file: the length of the header (8 bytes, little-endian), the header as JSON, data. */
function readHeader(path: string, room: number) {
  let fd: number;
  try {
    // A pipe would be waited for.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw new SdarError("FILE_UNREADABLE", `cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
  try {
    const status = fstatSync(fd);
    if (!status.isFile()) throw new SdarError("FILE_UNREADABLE", `cannot read ${path}: it is no regular file`);
    const bytes = status.size;
    if (bytes < 8) throw truncated(path, `has ${bytes} bytes; a safetensors file has at least 8`);
    const length = Number(readAt(fd, 0, 8, path).readBigUInt64LE());
    if (length > room) {
      throw invalid(path, `header length is ${length}; at most ${room} is allowed (is this a safetensors file?)`);
    }
    if (length > bytes - 8) {
      throw truncated(path, `ends inside its header: the header has ${length} bytes, the file ${bytes}`);
    }
    let header: unknown;
    try {
      header = JSON.parse(readAt(fd, 8, length, path).toString("utf8"));
    } catch (cause) {
      if (cause instanceof SdarError) throw cause;
      throw invalid(path, `header is not valid JSON: ${(cause as Error).message}`);
    }
    if (!isObject(header)) throw invalid(path, "header is not a JSON object");
    return { header, headerBytes: length, dataBytes: bytes - 8 - length, bytes };
  } finally {
    closeSync(fd);
  }
}

function readAt(fd: number, position: number, length: number, path: string): Buffer {
  const bytes = Buffer.alloc(length);
  let size = 0;
  for (let read = -1; read !== 0 && size < length; size += read) {
    read = readSync(fd, bytes, size, length - size, position + size);
  }
  if (size < length) throw truncated(path, `ends after ${position + size} bytes, inside its header`);
  return bytes;
}

function tensorsOf(header: Record<string, unknown>, dataBytes: number, path: string): StoredTensor[] {
  const found = Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, entry]) => ({ name, ...tensorOf(name, entry, dataBytes, path) }))
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
  // The format allows neither overlaps nor holes.
  let at = 0;
  for (const { begin, end, name } of found) {
    const where = `${path}: tensor ${shown(name)}`;
    if (begin < at) throw invalid(where, `lies at bytes ${begin} to ${end} of the data and overlaps the one before it`);
    if (begin > at) throw invalid(where, `leaves a hole before it, bytes ${at} to ${begin} of the data`);
    at = end;
  }
  if (at !== dataBytes) throw invalid(path, `no tensor covers bytes ${at} to ${dataBytes} of the data`);
  const file = basename(path);
  return found.map(({ name, dtype, shape, begin, end }) => ({ name, dtype, shape, bytes: end - begin, file }));
}

function tensorOf(name: string, entry: unknown, dataBytes: number, path: string) {
  const where = `${path}: tensor ${shown(name)}`;
  if (!isObject(entry)) throw invalid(where, "is not described by an object");
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string") throw invalid(where, "dtype is missing or not a string");
  if (!isSizes(shape) || shape.length > maxDimensions) {
    throw invalid(where, `shape is missing or not a list of at most ${maxDimensions} integers >= 0`);
  }
  if (!isSizes(offsets) || offsets.length !== 2 || (offsets[0] as number) > (offsets[1] as number)) {
    throw invalid(where, "data_offsets are missing or not two integers, 0 <= begin <= end");
  }
  const [begin, end] = offsets as [number, number];
  const size = elementBytes[dtype];
  const expected = size === undefined ? end - begin : shape.reduce((product, one) => product * one, size);
  if (end - begin !== expected) {
    throw invalid(where, `data_offsets span ${end - begin} bytes; shape and dtype mean ${expected}`);
  }
  if (end > dataBytes) {
    throw truncated(where, `lies at bytes ${begin} to ${end} of the data, which has only ${dataBytes}`);
  }
  return { dtype: dtype.slice(0, 16), shape, begin, end };
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && one >= 0);

/** A name as messages show it. */
const shown = (name: string) => JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name).slice(1, -1);

const invalid = (where: string, what: string) => new SdarError("CHECKPOINT_INVALID", `${where}: ${what}`);
const truncated = (where: string, what: string) => new SdarError("CHECKPOINT_TRUNCATED", `${where}: ${what}`);
