// Builds the addon from source into build/Release/sdar_node.node. It needs CMake and a C++20 compiler, and downloads nothing:
// the N-API headers come from the npm packages node-api-headers and node-addon-api.
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { cmake, digestOf, isMain, orExit, root } from "./cmake.mjs";

const release = join(root, "build", "Release");
const addon = join(release, "sdar_node.node");
const stamp = join(release, "sdar_node.sources");

function headerFolders() {
  const require = createRequire(import.meta.url);
  // node-addon-api's own is relative to the folder that the process is in.
  return [require("node-api-headers").include_dir, dirname(require.resolve("node-addon-api"))].join(";");
}

/** The one build folder of the addon and of the native tests, which share all objects but their own. */
export const folder = "build/native";
export const options = (tests) => ({
  CMAKE_BUILD_TYPE: "Release",
  SDAR_ADDON: "ON",
  SDAR_TESTS: tests ? "ON" : "OFF",
  SDAR_CUDA: "OFF", // scripts/cuda-library.mjs
  SDAR_NAPI_INCLUDE: headerFolders(),
});

export async function buildAddon() {
  const digest = digestOf(["CMakeLists.txt", "cmake", "native", "third_party"]);
  if (existsSync(addon) && existsSync(stamp) && readFileSync(stamp, "utf8") === digest) return addon;
  const build = await cmake(folder, options(false), { label: "sdar-engine: native addon", targets: ["sdar_node"] });
  mkdirSync(release, { recursive: true });
  // Renamed into place: a process that has the old file open keeps it.
  copyFileSync(join(build, "sdar_node.node"), `${addon}.new`);
  renameSync(`${addon}.new`, addon);
  writeFileSync(stamp, digest);
  return addon;
}

if (isMain(import.meta.url)) await orExit(buildAddon());
