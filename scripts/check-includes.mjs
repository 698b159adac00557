// Includes of native/ point one way: addon → engine → {cache, model} → backend/*.h, the contract; what implements it, in
// backend/*.cc, cpu/ and cuda/, also calls model/forward.h. denoise, form and util are below all; train stands beside engine, above
// model and the CPU's threads. Nothing includes train but addon and bench, which may include everything and is included by nothing.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./cmake.mjs";

/** Which layers a file of each layer may include, besides its own. */
const below = {
  bench: ["addon", "engine", "train", "cache", "model", "backend", "denoise", "form", "util"],
  addon: ["engine", "train", "cache", "model", "backend", "denoise", "form", "util"],
  engine: ["cache", "model", "backend", "denoise", "form", "util"],
  train: ["model", "backend", "denoise", "util"],
  cache: ["backend", "denoise", "util"],
  model: ["backend", "denoise", "util"],
  backend: ["denoise", "util"],
  denoise: ["util"],
  form: ["util"],
  util: [],
};
/** Outside backend/ and bench/, its contract may be included; of cpu/ and cuda/ only the one public header, and only where a backend is made. */
const contract = /^backend\/\w+\.h$/;
const publicHeader = /^backend\/(\w+)\/\1\.h$/;
const choosers = ["engine/load.cc", "addon/devices.cc", "train/compute.cc"];
/** The threads that training shares with the CPU's backend. */
const threads = ["train/compute.h", "backend/cpu/pool.h"];
/** What a backend computes, and the files that may know: those that no contract header reaches. */
const forward = ["model/forward.h", "model/weights.h"];
const implementation = /^backend\/(\w+\/.*|\w+\.cc)$/;

/** Why `file` may not include `included`; undefined when it may. Both are named from native/. */
function refusal(file, included) {
  const [layer, target] = [file, included].map((path) => path.split("/")[0]);
  if (!(target in below)) return "name it from native/, as in layer/file.h";
  if (forward.includes(included) && implementation.test(file)) return undefined;
  if (target !== layer && !below[layer]?.includes(target)) return `${layer} may not include ${target}`;
  if (target !== "backend" || layer === "bench") return undefined;
  if (layer !== "backend") {
    if (contract.test(included) || (choosers.includes(file) && publicHeader.test(included))) return undefined;
    if (file === threads[0] && included === threads[1]) return undefined;
    return `${layer} may include backend/*.h only`;
  }
  // The contract knows no backend, and no backend another.
  const [own, other] = [file, included].map((path) => path.split("/").slice(1, -1)[0]);
  return other && other !== own
    ? `${own ? `backend/${own}` : "the contract"} may not include backend/${other}`
    : undefined;
}

const native = join(root, "native");
let wrong = 0;
for (const file of readdirSync(native, { recursive: true }).sort()) {
  if (!/\.(h|cc|cu|cuh)$/.test(file)) continue;
  const lines = readFileSync(join(native, file), "utf8").split("\n");
  for (const [index, line] of lines.entries()) {
    const included = /^\s*#\s*include\s+"([^"]+)"/.exec(line)?.[1];
    if (!included || included.startsWith("nlohmann/")) continue;
    const reason = refusal(file, included);
    if (!reason) continue;
    console.log(`native/${file}:${index + 1}: "${included}": ${reason}`);
    wrong++;
  }
}
process.exitCode = wrong > 0 ? 1 : 0;
