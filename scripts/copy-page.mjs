// The playground's files, which are served as they are, into dist/: node scripts/copy-page.mjs
import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { isMain, root } from "./cmake.mjs";

/** Anew, so that no file stays that the sources no longer have. */
export function copyPage() {
  const target = join(root, "dist", "server", "page");
  rmSync(target, { recursive: true, force: true });
  cpSync(join(root, "lib", "server", "page"), target, { recursive: true });
}

if (isMain(import.meta.url)) copyPage();
