// Builds libsdar_cuda.so, the CUDA kernels, beside the addon in build/Release where nvcc is found; nothing is downloaded.
//   SDAR_CUDA_ARCHITECTURES="80;90a" node scripts/cuda-library.mjs
// Without that variable it is built for the devices of this machine, or for all supported ones where there is none.
// CUDACXX names a compiler other than the PATH's nvcc; SDAR_SKIP_CUDA=1 builds none.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cmake, digestOf, isMain, orExit, root } from "./cmake.mjs";

/** CMakeLists.txt's default, as in ["80", "90a"], from old to new. */
export const allArchitectures = /SDAR_CUDA_ARCHITECTURES "([^"]+)"/
  .exec(readFileSync(join(root, "CMakeLists.txt"), "utf8"))[1]
  .split(";");
const release = join(root, "build", "Release");
const library = join(release, "libsdar_cuda.so");
const stamp = join(release, "libsdar_cuda.sources");
const folder = "build/cuda";

/** The compiler's name and version, for what it made is its own; undefined where there is none. */
function compiler() {
  const name = process.env.CUDACXX || "nvcc";
  const answer = spawnSync(name, ["--version"], { encoding: "utf8" });
  return answer.status === 0 ? `${name}\n${answer.stdout}` : undefined;
}

/** Empties the build folder when it is another compiler's: CMake keeps the one that it found first. */
function keepOnly(nvcc) {
  const file = join(root, folder, "compiler.txt");
  if (!existsSync(file) || readFileSync(file, "utf8") !== nvcc)
    rmSync(join(root, folder), { recursive: true, force: true });
  mkdirSync(join(root, folder), { recursive: true });
  writeFileSync(file, nvcc);
}

/** The architectures that this machine's devices run; none where no device answers. */
export function cardArchitectures() {
  const query = ["--query-gpu=compute_cap", "--format=csv,noheader"];
  // A driver that hangs must not hold up an install.
  const answer = spawnSync("nvidia-smi", query, { encoding: "utf8", timeout: 10_000, killSignal: "SIGKILL" });
  if (answer.status !== 0) return [];
  const found = new Set();
  for (const [, major, minor] of answer.stdout.matchAll(/^(\d+)\.(\d)\s*$/gm)) {
    // Machine code runs on later devices of the same generation.
    const runs = allArchitectures.filter((a) => {
      const number = Number.parseInt(a, 10);
      return Math.floor(number / 10) === Number(major) && number % 10 <= Number(minor);
    });
    if (runs.length > 0) found.add(runs.at(-1));
  }
  return allArchitectures.filter((a) => found.has(a));
}

export const canBuildCuda = () =>
  process.platform === "linux" && !process.env.SDAR_SKIP_CUDA && compiler() !== undefined;

/** What SDAR_CUDA_ARCHITECTURES asks for; undefined when it says nothing. */
export function namedArchitectures() {
  const named = process.env.SDAR_CUDA_ARCHITECTURES?.split(/[;, ]+/).filter(Boolean);
  return named?.length ? named : undefined;
}

/** Returns the library's path. */
export async function buildCudaLibrary(architectures) {
  const ofCards = () => {
    const cards = cardArchitectures();
    return cards.length > 0 ? cards : allArchitectures;
  };
  const chosen = namedArchitectures() ?? architectures ?? ofCards();
  const nvcc = compiler() ?? "none";
  const digest = digestOf(["CMakeLists.txt", "cmake", "native"], `${chosen.join(";")} ${nvcc}`);
  if (existsSync(library) && existsSync(stamp) && readFileSync(stamp, "utf8") === digest) return library;
  const options = { CMAKE_BUILD_TYPE: "Release", SDAR_ADDON: "OFF", SDAR_CUDA: "ON" };
  keepOnly(nvcc);
  const build = await cmake(
    folder,
    { ...options, SDAR_CUDA_ARCHITECTURES: chosen.join(";") },
    {
      label: `sdar-engine: CUDA library (${chosen.map((a) => `sm_${a}`).join(", ")})`,
      targets: ["sdar_cuda"],
    },
  );
  mkdirSync(release, { recursive: true });
  copyFileSync(join(build, "libsdar_cuda.so"), `${library}.new`);
  renameSync(`${library}.new`, library);
  writeFileSync(stamp, digest);
  return library;
}

if (isMain(import.meta.url)) {
  if (canBuildCuda()) await orExit(buildCudaLibrary());
  else
    console.log(
      "sdar-engine: the CUDA library is not built: nvcc, or what CUDACXX names, was not found, or SDAR_SKIP_CUDA is set",
    );
}
