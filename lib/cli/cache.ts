// sdar cache: the packed weights that Engine.load keeps.
import { closeSync, openSync, readdirSync, readSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import { cacheFolder } from "../cache-folder.js";
import { SdarError } from "../errors.js";
import { printable, sizeOf } from "./terminal.js";

interface Entry {
  file: string;
  /** folder of the checkpoint; undefined when the file is none that this version writes */
  model: string | undefined;
  bytes: number;
  lastUsed: Date;
}

export function cacheCommand(): Command {
  const command = new Command("cache")
    .description("Shows or removes the packed weights that loads have kept")
    .addHelpText("after", "\nExamples:\n  sdar cache\n  sdar cache clear");
  command
    .command("ls", { isDefault: true })
    .description("Lists them, the last used first")
    .option("--folder <path>", "folder of the cache (default: $SDAR_CACHE_DIR, else that of this user)")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExamples:\n  sdar cache ls\n  sdar cache ls --json | jq '.entries[].model'")
    .action(list);
  command
    .command("clear")
    .description("Removes them; engines that use them go on")
    .option("--folder <path>", "folder of the cache (default: $SDAR_CACHE_DIR, else that of this user)")
    .addHelpText("after", "\nExample:\n  sdar cache clear")
    .action(clear);
  return command;
}

function list({ folder, json }: { folder?: string; json?: boolean }): void {
  const where = folderOf(folder);
  const entries = entriesIn(where);
  if (json) {
    process.stdout.write(`${JSON.stringify({ folder: where, entries }, null, 2)}\n`);
    return;
  }
  const lines = entries.map(
    ({ bytes, lastUsed, model }) =>
      `${sizeOf(bytes).padStart(9)}  ${lastUsed.toISOString().slice(0, 16).replace("T", " ")}  ${printable(model ?? "unknown")}`,
  );
  const total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  process.stdout.write(
    `${[...lines, `${sizeOf(total).padStart(9)}  in ${entries.length} file(s) of ${where}`].join("\n")}\n`,
  );
}

function clear({ folder }: { folder?: string }): void {
  const where = folderOf(folder);
  const entries = entriesIn(where);
  for (const { file } of entries) rmSync(join(where, file), { force: true });
  const total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  process.stdout.write(`removed ${entries.length} file(s), ${sizeOf(total)}, from ${where}\n`);
}

function folderOf(given: string | undefined): string {
  const folder = cacheFolder(given ?? true);
  if (folder === "") throw new SdarError("INVALID_OPTION", "this user has no home; give --folder or $SDAR_CACHE_DIR");
  return folder;
}

/** Files by the names that native/model/cache_folder.h gives them, also half-written ones; nothing else. */
function entriesIn(folder: string): Entry[] {
  const names = listed(folder).filter((name) =>
    /^[0-9a-f]{16}(-[0-9a-f]{16})?\.sdarpack(\.[0-9a-f]+\.tmp)?$/.test(name),
  );
  return names
    .flatMap((file) => {
      const stat = statSync(join(folder, file), { throwIfNoEntry: false });
      if (!stat?.isFile()) return [];
      const lastUsed = new Date(Math.max(stat.atimeMs, stat.mtimeMs));
      return [{ file, model: modelOf(join(folder, file)), bytes: stat.size, lastUsed }];
    })
    .sort((a, b) => b.lastUsed.getTime() - a.lastUsed.getTime());
}

function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw new SdarError("FILE_UNREADABLE", `cannot read ${folder}: ${(cause as Error).message}`, { cause });
  }
}

/** The first line of the text in a file's header. */
function modelOf(file: string): string | undefined {
  const head = Buffer.alloc(8192);
  let length = 0;
  try {
    const fd = openSync(file, "r");
    length = readSync(fd, head, 0, head.length, 0);
    closeSync(fd);
  } catch {
    return undefined;
  }
  const text = "SDARPACK2\n\0".length + 16;
  const end = head.indexOf("\n", text);
  return head.toString("latin1", 0, 10) === "SDARPACK2\n" && end > 0 && end < length
    ? head.toString("utf8", text, end)
    : undefined;
}
