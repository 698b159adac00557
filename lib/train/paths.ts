// What a run reads and where it writes, judged before anything is made: nothing wrong there is to come out at its end. And
// the errors of what goes wrong with files all the same.
import { accessSync, constants, existsSync, lstatSync, statSync } from "node:fs";
import { dirname, resolve, sep } from "node:path";
import { invalidOption, SdarError } from "../errors.js";

export function checkFolders({ to, run }: { to: string; run: string }): void {
  const [target, folder] = [resolve(to), resolve(run)];
  if (entry(target)) throw invalidOption("to", to, "a folder that does not exist yet");
  if (within(target, folder) || within(folder, target))
    throw invalidOption("run", run, `a folder apart from the finished model's, ${target}`);
  for (const path of [target, folder]) checkWritable(path);
}

/** Throws FILE_NOT_FOUND, FILE_UNREADABLE: also for a pipe or a device, which cannot be read twice, or ends never. */
export function checkFiles(files: readonly string[]): void {
  for (const file of files) {
    try {
      accessSync(file, constants.R_OK);
      if (!statSync(file).isFile()) throw new Error("it is no regular file");
    } catch (cause) {
      throw unreadable(file, cause as Error);
    }
  }
}

export function unreadable(file: string, cause: NodeJS.ErrnoException): SdarError {
  const missing = cause.code === "ENOENT" || cause.code === "ENOTDIR";
  return new SdarError(missing ? "FILE_NOT_FOUND" : "FILE_UNREADABLE", `cannot read ${file}: ${cause.message}`, {
    cause,
  });
}

/** Throws FILE_UNWRITABLE naming `path` where `act` throws. */
export function writing<T>(path: string, act: () => T): T {
  try {
    return act();
  } catch (cause) {
    throw new SdarError("FILE_UNWRITABLE", `${path}: cannot be written: ${(cause as Error).message}`, { cause });
  }
}

/** The path, or of what it lies in the first that exists. */
export function nearest(path: string): string {
  let near = path;
  while (!existsSync(near) && dirname(near) !== near) near = dirname(near);
  return near;
}

const within = (path: string, folder: string) =>
  path === folder || path.startsWith(`${folder.replace(/\/$/, "")}${sep}`);

/** Also a link to nothing is one. */
function entry(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return false; // a part of the path is a file: checkWritable tells
  }
}

function checkWritable(path: string): void {
  writing(path, () => {
    const near = nearest(path);
    if (!statSync(near).isDirectory()) throw new Error(`${near} is no folder`);
    accessSync(near, constants.W_OK | constants.X_OK);
  });
}
