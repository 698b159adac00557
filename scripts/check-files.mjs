// No source file has more than 400 lines: node scripts/check-files.mjs [--sizes]
// --sizes: also how many files there are, the median of their lines, and those that may be too small to stand alone.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./cmake.mjs";

const most = 400;
const few = 40;
const folders = ["lib", "native", "test", "scripts", "bench", "cmake", "examples"];
const source = /\.(h|cc|cu|cuh|ts|mjs|js|py|sh|cmake)$/;
/** What others wrote or a program generated. */
const foreign = /(^|\/)(node_modules|golden|results)\//;

function linesOf(file) {
  const text = readFileSync(join(root, file), "utf8");
  return text.split("\n").length - (text.endsWith("\n") ? 1 : 0);
}

const files = folders
  .flatMap((folder) => {
    try {
      return readdirSync(join(root, folder), { recursive: true }).map(
        (name) => `${folder}/${name.replaceAll("\\", "/")}`,
      );
    } catch {
      return []; // not every checkout has all of them
    }
  })
  .filter((name) => source.test(name) && !foreign.test(name))
  .map((name) => ({ name, lines: linesOf(name) }));

const long = files.filter(({ lines }) => lines > most);
for (const { name, lines } of long) console.log(`${name}: ${lines} lines; at most ${most}`);

if (process.argv.includes("--sizes")) {
  for (const folder of folders) {
    const lines = files
      .filter(({ name }) => name.startsWith(`${folder}/`))
      .map((file) => file.lines)
      .sort((a, b) => a - b);
    if (lines.length > 0) console.log(`${folder}: ${lines.length} files, median ${lines[lines.length >> 1]} lines`);
  }
  for (const { name, lines } of files) if (lines < few) console.log(`${name}: ${lines} lines; fewer than ${few}`);
}
process.exitCode = long.length > 0 ? 1 : 0;
