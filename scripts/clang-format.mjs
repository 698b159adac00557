// Checks the layout of the native sources (--write: sets it) where clang-format 14 is installed.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { root } from "./cmake.mjs";

// Versions differ in what they make of the same style.
const wanted = "14";
const version = /version (\d+)/.exec(spawnSync("clang-format", ["--version"], { encoding: "utf8" }).stdout)?.[1];
if (version !== wanted) {
  console.log(`skipped: it needs clang-format ${wanted}, here is ${version ?? "none"}`);
} else {
  const files = ["native", "test/native", "bench"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true })
      .filter((name) => /\.(h|cc|cu|cuh)$/.test(name) && !name.includes("node_modules"))
      .map((name) => join(root, folder, name)),
  );
  const mode = process.argv.includes("--write") ? ["-i"] : ["--dry-run", "-Werror"];
  process.exitCode = spawnSync("clang-format", [...mode, ...files], { stdio: "inherit" }).status;
}
