// Native tests for 64-bit Arm, cross-compiled and run under emulation: those that reach Arm code, and whole generations.
// Which, and how, says the CMake preset arm64. Debian, Ubuntu: apt-get install g++-aarch64-linux-gnu qemu-user
import { has, isMain } from "./cmake.mjs";
import { presetTests, report } from "./native-tests.mjs";

const needs = ["aarch64-linux-gnu-g++", "qemu-aarch64"];
export const canCross = () => needs.every(has);
export const crossTests = (only = []) => presetTests("arm64", { only });

if (isMain(import.meta.url)) {
  if (canCross()) await report(crossTests(process.argv.slice(2)));
  else console.log(`skipped: it needs ${needs.join(" and ")}`);
}
