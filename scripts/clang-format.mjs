// Checks the layout of the native sources (--write: sets it) where clang-format is installed.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { has, root } from "./cmake.mjs";

if (!has("clang-format")) {
  console.log("clang-format is not installed: the layout of the native sources is not checked");
} else {
  const files = ["native", "test/native", "bench"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true })
      .filter((name) => /\.(h|cc|cu|cuh)$/.test(name) && !name.includes("node_modules"))
      .map((name) => join(root, folder, name)),
  );
  const mode = process.argv.includes("--write") ? ["-i"] : ["--dry-run", "-Werror"];
  process.exitCode = spawnSync("clang-format", [...mode, ...files], { stdio: "inherit" }).status;
}
