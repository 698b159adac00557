// Native tests for 64-bit Arm, cross-compiled and run under emulation: those of the kernels, and whole generations.
// Debian, Ubuntu: apt-get install g++-aarch64-linux-gnu qemu-user
import { has, isMain } from "./cmake.mjs";
import { nativeTests, report } from "./native-tests.mjs";

const compiler = "aarch64-linux-gnu-g++";
export const canCross = () => has(compiler) && has("qemu-aarch64");

/** The tests that reach Arm code. */
const touched = ["cpu_attention_test", "cpu_head_test", "cpu_linear_test", "golden_test"];

export const crossTests = (only = touched) =>
  nativeTests({
    folder: "build/arm64",
    options: {
      CMAKE_BUILD_TYPE: "Release",
      CMAKE_SYSTEM_NAME: "Linux",
      CMAKE_SYSTEM_PROCESSOR: "aarch64",
      CMAKE_CXX_COMPILER: compiler,
      SDAR_ADDON: "OFF",
      SDAR_TESTS: "ON",
    },
    label: "native tests for arm64",
    wrapper: ["qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu"], // max: all instruction sets
    only,
    env: { SDAR_TEST_QUICK: "1" },
  });

if (isMain(import.meta.url)) {
  if (canCross()) await report(crossTests(process.argv.length > 2 ? process.argv.slice(2) : undefined));
  else console.log(`skipped: it needs ${compiler} and qemu-aarch64`);
}
