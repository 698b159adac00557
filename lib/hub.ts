// A checkpoint from a hub into the local Hugging Face cache, where Engine.load finds it.
import { mkdir, rename, rm, stat, statfs, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { hubFolder } from "./checkpoint.js";
import { describe, invalidOption, SdarError } from "./errors.js";
import { failed, type HubSettings, hubFetch, persist } from "./hub-fetch.js";
import { bytesThere, type RemoteFile, transfer } from "./hub-transfer.js";
import { optionalPackage } from "./optional-package.js";

export interface PullOptions extends Partial<Omit<HubSettings, "token">> {
  /** branch, tag or commit */
  revision?: string;
  token?: string | undefined;
  /** Finds out what there is to do, and does nothing. */
  dryRun?: boolean;
  /** Called with bytes of all files together. */
  onProgress?: (progress: { file: string; done: number; total: number }) => void;
}

export interface Pulled {
  /** of the snapshot */
  folder: string;
  commit: string;
  files: { name: string; size: number; missing: number }[];
  /** bytes of all files, and of those that were not there yet */
  bytes: number;
  missing: number;
}

/** What a checkpoint needs besides its tensors, and who may use it. */
const smallFiles =
  /^(config\.json|generation_config\.json|tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|chat_template\.(jinja|json)|LICEN[CS]E.*|NOTICE.*|README\.md|model\.safetensors\.index\.json)$/;
const single = "model.safetensors";
const shards = /^model[\w.-]*\.safetensors$/;

/**
 * Downloads the checkpoint `org/name`: what is there already is not fetched again, what broke off goes on. A file has its name
 * only when size and checksum are right, and the snapshot is found only when all its files are there.
 *
 * Throws INVALID_OPTION, MODEL_NOT_FOUND, DOWNLOAD_FAILED, FILE_UNWRITABLE, and what `signal` was aborted with.
 */
export async function pullModel(id: string, options: PullOptions = {}): Promise<Pulled> {
  if (!/^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(id) || id.includes(".."))
    throw invalidOption("model", id, "a hub id: org/name");
  const { revision = "main", dryRun = false, onProgress } = options;
  if (!/^[\w-][\w./-]*$/.test(revision) || revision.includes("..")) {
    throw invalidOption("revision", revision, "a branch, tag or commit");
  }
  const hub: HubSettings = {
    endpoint: (options.endpoint || "https://huggingface.co").replace(/\/+$/, ""),
    token: options.token || undefined,
    ...{ retries: options.retries ?? 5, retryMs: options.retryMs ?? 1000, stallMs: options.stallMs ?? 60_000 },
    signal: options.signal,
  };
  if (!URL.canParse(hub.endpoint)) throw invalidOption("HF_ENDPOINT", hub.endpoint, "the address of a hub");
  const { commit, files } = await list(hub, id, revision);
  const folder = hubFolder(id);
  const blobOf = ({ oid }: RemoteFile) => join(folder, "blobs", oid);
  const all = await Promise.all(
    files.map(async (file) => ({ file, missing: file.size - (await bytesThere(blobOf(file), file)) })),
  );
  const snapshot = join(folder, "snapshots", commit);
  const total = files.reduce((sum, { size }) => sum + size, 0);
  const missing = all.reduce((sum, one) => sum + one.missing, 0);
  const pulled: Pulled = {
    ...{ folder: snapshot, commit, bytes: total, missing },
    files: all.map((one) => ({ name: one.file.name, size: one.file.size, missing: one.missing })),
  };
  if (dryRun) return pulled;
  await writing(folder, async () => {
    await mkdir(join(folder, "blobs"), { recursive: true });
    await mkdir(snapshot, { recursive: true });
  });
  await checkSpace(folder, missing);
  let before = 0;
  for (const file of files) {
    const url = `${hub.endpoint}/${id}/resolve/${commit}/${encodeURIComponent(file.name)}`;
    const onBytes = (bytes: number) => onProgress?.({ file: file.name, done: before + bytes, total });
    await writing(folder, () => transfer(hub, url, file, blobOf(file), onBytes));
    before += file.size;
  }
  await writing(folder, () => publish(folder, snapshot, revision, commit, files));
  return pulled;
}

async function list(hub: HubSettings, id: string, revision: string): Promise<{ commit: string; files: RemoteFile[] }> {
  const { listFiles, modelInfo } = await library();
  // Its own would follow redirects with less care, and not try again.
  const through = (url: unknown, init?: RequestInit) =>
    persist(hub, () => hubFetch(hub, String(url), { ...init, ...(hub.signal && { signal: hub.signal }) }));
  const common = { hubUrl: hub.endpoint, fetch: through as typeof fetch };
  try {
    const { sha: commit } = await modelInfo({ ...common, name: id, revision, additionalFields: ["sha"] });
    if (!/^[0-9a-f]{40}$/.test(commit)) throw failed(`${hub.endpoint} names no commit for ${id}`);
    const found: RemoteFile[] = [];
    for await (const { type, path, size, oid, lfs } of listFiles({ ...common, repo: id, revision: commit })) {
      const whole = { name: path, size: lfs?.size ?? size, oid: lfs?.oid ?? oid ?? "", lfs: lfs !== undefined };
      if (type === "file" && (smallFiles.test(path) || shards.test(path))) found.push(checkedFile(whole));
    }
    return { commit, files: chosen(found, id) };
  } catch (error) {
    hub.signal?.throwIfAborted();
    if (error instanceof SdarError) throw error;
    throw failed(`${hub.endpoint} does not answer as a hub does: ${describe(error)}`, error);
  }
}

/** The list becomes names of files: it is not taken at its word. */
function checkedFile(file: RemoteFile): RemoteFile {
  const { name, size, oid, lfs } = file;
  if (Number.isSafeInteger(size) && size >= 0 && (lfs ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(oid)) return file;
  throw failed(`the hub's list has no size and checksum for ${name}`);
}

/** Tensors as the engine looks for them: in one file, else in shards. Small files come first. */
function chosen(found: readonly RemoteFile[], id: string): RemoteFile[] {
  const has = (name: string) => found.some((file) => file.name === name);
  if (!has("config.json")) throw failed(`${id} has no config.json, and so is no checkpoint`);
  const index = `${single}.index.json`;
  if (!has(single) && !has(index)) {
    throw failed(`${id} has neither ${single} nor ${index}; other formats of weights are not downloaded`);
  }
  const wanted = found.filter(
    ({ name }) => smallFiles.test(name) || (has(single) ? name === single : shards.test(name)),
  );
  return wanted
    .filter(({ name }) => !(has(single) && name === index))
    .sort((a, b) => Number(shards.test(a.name)) - Number(shards.test(b.name)) || (a.name < b.name ? -1 : 1));
}

/** Links of the snapshot, config.json last: a folder without one is no checkpoint. Then the name of the revision. */
async function publish(
  folder: string,
  snapshot: string,
  revision: string,
  commit: string,
  files: readonly RemoteFile[],
) {
  const late = ({ name }: RemoteFile) => Number(name === "config.json");
  for (const { name, oid } of [...files].sort((a, b) => late(a) - late(b))) {
    const link = join(snapshot, name);
    const there = await stat(link).catch(() => undefined);
    if (there) continue;
    await rm(link, { force: true });
    await symlink(join("..", "..", "blobs", oid), link);
  }
  if (revision === commit) return;
  const ref = join(folder, "refs", revision);
  await mkdir(dirname(ref), { recursive: true });
  // Whoever loads meanwhile reads one commit or the other.
  await writeFile(`${ref}.${process.pid}.tmp`, commit);
  await rename(`${ref}.${process.pid}.tmp`, ref);
}

async function checkSpace(folder: string, missing: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (missing <= free) return;
  const [needed, there] = [missing, free].map((bytes) => `${(bytes / 1e9).toFixed(2)} GB`);
  throw new SdarError("FILE_UNWRITABLE", `${folder}: there is no room: ${needed} are missing, ${there} are free`);
}

async function writing<T>(folder: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (error instanceof SdarError || code === undefined || syscall === undefined) throw error;
    throw new SdarError("FILE_UNWRITABLE", `cannot write below ${folder}: ${describe(error)}`, { cause: error });
  }
}

/** A peer dependency that is optional: loaded by those who download. */
const library = () =>
  optionalPackage(
    () => import("@huggingface/hub"),
    "the package @huggingface/hub is not installed: npm install @huggingface/hub",
  );
