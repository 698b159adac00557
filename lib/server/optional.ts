// Packages that only this part needs: optional peers, loaded on use.
import { SdarError } from "../errors.js";

/** What `load` gives; where the package is missing, NATIVE_MISSING's sibling that names the command to install it. */
export async function optionalPackage<T>(name: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw cause;
    const message = `the server needs the package ${name}, which is not installed: npm install ${name}`;
    throw new SdarError("FILE_NOT_FOUND", message, { cause });
  }
}
