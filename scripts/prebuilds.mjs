// Makes the prebuilt addons of the package, prebuilds/linux-{x64,arm64}/sdar-engine.node, that of the other architecture by a
// cross-compiler, and checks what they need of a system. Where nvcc is found, the package of the CUDA library gets its file.
//   npm run prebuilds [-- x64]
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { options } from "./build.mjs";
import { checkPrebuilds } from "./check-prebuilds.mjs";
import { BuildError, cmake, has, isMain, orExit, root } from "./cmake.mjs";
import { allArchitectures, buildCudaLibrary, canBuildCuda } from "./cuda-library.mjs";

export const architectures = { x64: "x86_64", arm64: "aarch64" };
const tool = (name) => join(root, "node_modules", ".bin", name);

const prefixOf = (arch) => (arch === process.arch ? "" : `${architectures[arch]}-linux-gnu-`);

/** Called by node-gyp, which prebuildify runs in a folder of its own: it would clear the project's build/. */
export async function buildPrebuilt(arch, file) {
  const cross = {
    CMAKE_SYSTEM_NAME: "Linux",
    CMAKE_SYSTEM_PROCESSOR: architectures[arch],
    CMAKE_CXX_COMPILER: `${prefixOf(arch)}g++`,
  };
  const build = await cmake(
    `build/prebuild/${arch}`,
    { ...options(false), SDAR_PREBUILT: "ON", ...(arch === process.arch ? {} : cross) },
    { label: `sdar-engine: addon for linux-${arch}`, targets: ["sdar_node"] },
  );
  mkdirSync(dirname(file), { recursive: true });
  copyFileSync(join(build, "sdar_node.node"), file);
}

async function prebuild(arch) {
  const compiler = `${prefixOf(arch)}g++`;
  if (!has(compiler))
    throw new BuildError(`${compiler} was not found: apt-get install g++-${architectures[arch]}-linux-gnu`);
  const stage = join(root, "build", "prebuild", `${arch}-gyp`);
  mkdirSync(stage, { recursive: true });
  const script = join(root, "scripts", "prebuilds.mjs");
  const action = {
    action_name: "cmake",
    inputs: [],
    outputs: ["<(PRODUCT_DIR)/always"],
    action: ["node", script, "--build", arch, join(stage, "build", "Release", "sdar-engine.node")],
  };
  const target = { target_name: "sdar_node", type: "none", actions: [action] };
  writeFileSync(join(stage, "binding.gyp"), JSON.stringify({ targets: [target] }));
  writeFileSync(join(stage, "package.json"), JSON.stringify({ name: "sdar-engine" }));
  // Headers of Node, which node-gyp wants to have and nothing uses, are not downloaded where they came with it.
  const installed = join(dirname(process.execPath), "..");
  if (existsSync(join(installed, "include", "node", "common.gypi"))) process.env.npm_config_nodedir ??= installed;
  const make = promisify(createRequire(import.meta.url)("prebuildify"));
  const settings = { cwd: stage, out: root, platform: "linux", arch, nodeGyp: tool("node-gyp") };
  await make({ ...settings, napi: true, strip: true, stripBin: `${prefixOf(arch)}strip` });
}

async function prebuildAll(only) {
  const chosen = Object.keys(architectures).filter((arch) => only.length === 0 || only.includes(arch));
  for (const arch of chosen) await prebuild(arch);
  if (canBuildCuda() && process.arch === "x64") {
    const built = await buildCudaLibrary(allArchitectures);
    copyFileSync(built, join(root, "packages", "cuda", "libsdar_cuda.so"));
  } else {
    console.log("sdar-engine: packages/cuda has no library: nvcc, or what CUDACXX names, was not found");
  }
  if (checkPrebuilds() > 0) process.exitCode = 1;
}

if (isMain(import.meta.url)) {
  const [flag, arch, file] = process.argv.slice(2);
  if (flag === "--build") await orExit(buildPrebuilt(arch, file));
  else await orExit(prebuildAll(process.argv.slice(2)));
}
