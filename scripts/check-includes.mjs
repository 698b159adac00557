// Includes point one way: addon → engine → {cache, model} → ops ← backend; denoise and util are below all.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./cmake.mjs";

/** Which layers a file of each layer may include, besides its own. */
const below = {
  addon: ["engine", "cache", "model", "ops", "denoise", "util"],
  engine: ["cache", "model", "ops", "denoise", "util"],
  cache: ["ops", "denoise", "util"],
  model: ["ops", "denoise", "util"],
  backend: ["ops", "denoise", "util"],
  ops: ["denoise", "util"],
  denoise: ["util"],
  util: [],
};
/** Where a backend is chosen and made: these know its one public header and nothing else of it. */
const choosers = ["engine/load.cc", "addon/devices.cc"];
const publicHeader = /^backend\/(\w+)\/\1\.h$/;

const native = join(root, "native");
let wrong = 0;
for (const file of readdirSync(native, { recursive: true }).sort()) {
  if (!/\.(h|cc|cu|cuh)$/.test(file)) continue;
  const layer = file.split("/")[0];
  const lines = readFileSync(join(native, file), "utf8").split("\n");
  for (const [index, line] of lines.entries()) {
    const included = /^\s*#\s*include\s+"([^"]+)"/.exec(line)?.[1];
    if (!included || included.startsWith("nlohmann/")) continue;
    const target = included.split("/")[0];
    if (target === layer || below[layer]?.includes(target)) continue;
    if (choosers.includes(file) && publicHeader.test(included)) continue;
    const reason = target in below ? `${layer} may not include ${target}` : "name it from native/, as in layer/file.h";
    console.log(`native/${file}:${index + 1}: "${included}": ${reason}`);
    wrong++;
  }
}
process.exitCode = wrong > 0 ? 1 : 0;
