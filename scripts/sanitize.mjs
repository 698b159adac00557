// The native tests under sanitizers: node scripts/sanitize.mjs address,undefined|thread [cache_test …]
import { spawnSync } from "node:child_process";
import { isMain } from "./cmake.mjs";
import { nativeTests, report } from "./native-tests.mjs";

export function sanitizedTests(sanitizers, only = []) {
  // Address-space randomisation that is too wide for the thread sanitizer's shadow memory is turned off where that is allowed.
  const still = ["setarch", process.arch === "arm64" ? "aarch64" : "x86_64", "-R"];
  const canHoldStill = sanitizers === "thread" && spawnSync(still[0], [...still.slice(1), "true"]).status === 0;
  return nativeTests({
    folder: `build/sanitize-${sanitizers.replace(",", "-")}`,
    options: {
      CMAKE_BUILD_TYPE: "RelWithDebInfo",
      CMAKE_CXX_FLAGS_RELWITHDEBINFO: "-O1 -g",
      SDAR_ADDON: "OFF",
      SDAR_TESTS: "ON",
      SDAR_SANITIZE: sanitizers,
    },
    label: `native tests with -fsanitize=${sanitizers}`,
    wrapper: canHoldStill ? still : [],
    only,
    // Kernels run on one thread there; the executor itself looks for their races. Whole generations take minutes.
    without:
      sanitizers === "thread"
        ? ["cuda_*"]
        : process.env.SDAR_TEST_FULL
          ? []
          : ["cuda_model_test", "cuda_warpgroup_test"],
    // Orders of fibers are for the executor to vary, in the plain run; here it is watched itself.
    env: { SDAR_TEST_QUICK: "1", SDAR_CUDA_ORDERS: "1" },
  });
}

if (isMain(import.meta.url))
  await report(sanitizedTests(process.argv[2] ?? "address,undefined", process.argv.slice(3)));
