// The native tests under sanitizers, in the build that the CMake preset describes: node scripts/sanitize.mjs asan|tsan [cache_test …]
import { spawnSync } from "node:child_process";
import { isMain } from "./cmake.mjs";
import { presetTests, report } from "./native-tests.mjs";

/**
 * Of the CUDA kernels' tests tsan runs none: kernels run on one thread there, and the executor itself looks for their races.
 * asan leaves out whole generations, which take minutes, unless `full`.
 */
export function sanitizedTests(preset, { only = [], full = false } = {}) {
  // Address-space randomisation that is too wide for the thread sanitizer's shadow memory is turned off where that is allowed.
  const still = ["setarch", process.arch === "arm64" ? "aarch64" : "x86_64", "-R"];
  const canHoldStill = preset === "tsan" && spawnSync(still[0], [...still.slice(1), "true"]).status === 0;
  const filter = full && preset === "asan" ? {} : undefined;
  return presetTests(preset, { only, filter, wrapper: canHoldStill ? still : [] });
}

if (isMain(import.meta.url)) await report(sanitizedTests(process.argv[2] ?? "asan", { only: process.argv.slice(3) }));
