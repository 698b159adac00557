// Packages that only a part of this one needs: optional peers, loaded on use.
import { SdarError } from "./errors.js";

/** What `load` imports; throws FILE_NOT_FOUND with `missing`, which names the command to install it, where it is not there. */
export async function optionalPackage<T>(load: () => Promise<T>, missing: string): Promise<T> {
  try {
    return await load();
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw cause;
    throw new SdarError("FILE_NOT_FOUND", missing, { cause });
  }
}
