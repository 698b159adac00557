// npm's install step: takes a prebuilt addon that fits this machine, else builds one from source.
// SDAR_SKIP_BUILD=1 does neither; npm_config_build_from_source=true ignores prebuilt ones. Where nvcc and a card are, or
// nvcc and SDAR_CUDA_ARCHITECTURES, the CUDA library is built too; that it fails does not fail the install.
import { createRequire } from "node:module";
import { buildAddon } from "./build.mjs";
import { BuildError, orExit, root } from "./cmake.mjs";
import { buildCudaLibrary, canBuildCuda, cardArchitectures, namedArchitectures } from "./cuda-library.mjs";

const supported = { linux: ["x64", "arm64"], darwin: ["x64", "arm64"] };

function isMusl() {
  if (process.platform !== "linux") return false;
  process.report.excludeNetwork = true;
  return process.report.getReport().header.glibcVersionRuntime === undefined;
}

/** The prebuilt addon's path if there is one and it loads here. */
function prebuilt() {
  process.env.PREBUILDS_ONLY = "1";
  const require = createRequire(import.meta.url);
  try {
    const path = require("node-gyp-build").resolve(root);
    require(path);
    return path;
  } catch {
    return undefined;
  }
}

if (process.env.SDAR_SKIP_BUILD) {
  console.log("sdar-engine: SDAR_SKIP_BUILD is set; the native addon is not built");
} else if (!supported[process.platform]?.includes(process.arch) || isMusl()) {
  const libc = isMusl() ? " with musl" : "";
  console.error(
    `sdar-engine: ${process.platform}-${process.arch}${libc} is not supported yet. Supported are Linux with glibc and macOS, on x64 and arm64.`,
  );
  process.exit(1);
} else if (process.env.npm_config_build_from_source || !prebuilt()) {
  await orExit(buildAddon());
}

if (!process.env.SDAR_SKIP_BUILD && canBuildCuda() && (namedArchitectures() || cardArchitectures().length > 0)) {
  try {
    await buildCudaLibrary();
  } catch (error) {
    const what = error instanceof BuildError ? error.message : error;
    console.error(`${what}\nsdar-engine: device "cuda" will not be available`);
  }
}
