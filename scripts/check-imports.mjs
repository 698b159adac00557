// Imports of lib/ point one way: the folders below lib/ import the library, which is the files right in it and lib/text/,
// never the other way; of one another they import nothing, but for the commands that only start a bench, a training or a server, and for the bench that trains. lib/jinja/ is
// below it all.
import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import ts from "typescript";
import { root } from "./cmake.mjs";

/** What else than the library a folder may import, and in which of its files. */
const beside = {
  cli: {
    bench: ["cli/bench.ts", "cli/eval.ts", "cli/make-checkpoint.ts"],
    worker: ["cli/enqueue.ts", "cli/worker.ts"],
    train: ["cli/adapt.ts", "cli/pretrain.ts", "cli/training.ts"],
    server: ["cli/serve.ts"],
  },
  bench: { train: ["bench/adapt-data.ts", "bench/adapt-runs.ts"] },
};
const layers = ["adapters", "bench", "cli", "server", "train", "worker"];
/** What the library itself is built on: imports nothing of it. */
const below = ["jinja"];

const layerOf = (file) => (file.includes("/") && !file.startsWith("text/") ? file.split("/")[0] : "library");

/** Why `file` may not import `imported`; undefined when it may. Both are named from lib/. */
function refusal(file, imported) {
  const [layer, target] = [file, imported].map(layerOf);
  if (imported.startsWith("../")) return "lib imports nothing outside of lib";
  if (target === layer) return undefined;
  if (below.includes(layer)) return `${layer} imports nothing of lib but itself`;
  if (target === "library" || (layer === "library" && below.includes(target))) return undefined;
  if (layer === "library") return `the library may not import ${target}`;
  const files = beside[layer]?.[target];
  if (files?.includes(file)) return undefined;
  return files ? `${layer} may import ${target} in ${files.join(", ")} only` : `${layer} may not import ${target}`;
}

const lib = join(root, "lib");
let wrong = 0;
for (const path of readdirSync(lib, { recursive: true }).sort()) {
  if (!path.endsWith(".ts")) continue;
  const file = path.replaceAll("\\", "/");
  const text = readFileSync(join(lib, path), "utf8");
  const complain = (position, what) => {
    console.log(`lib/${file}:${text.slice(0, position).split("\n").length}: ${what}`);
    wrong++;
  };
  if (layerOf(file) !== "library" && ![...layers, ...below].includes(layerOf(file))) {
    complain(0, `${layerOf(file)} is not among the layers: ${layers.join(", ")}`);
  }
  // Types, re-exports and import() too; packages are not of concern here.
  for (const { fileName, pos } of ts.preProcessFile(text, true, true).importedFiles) {
    if (!fileName.startsWith(".")) continue;
    const reason = refusal(file, posix.join(posix.dirname(file), fileName));
    if (reason) complain(pos, `"${fileName}": ${reason}`);
  }
}
process.exitCode = wrong > 0 ? 1 : 0;
