// Gets the peer ready to run: installs node-llama-cpp, takes the headers out of its source bundle, compiles the
// programs against its libraries, and writes random GGUF files. Everything lands in build/peers and is made again only
// when older than its source.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { exportCheckpoint } from "./checkpoint.mjs";

const here = dirname(fileURLToPath(import.meta.url));
export const root = join(here, "../..");
export const cache = join(root, "build/peers");

function call(command, args, options = {}) {
  execFileSync(command, args, { stdio: ["ignore", "ignore", "inherit"], ...options });
}

function isFresh(target, ...sources) {
  return existsSync(target) && sources.every((source) => statSync(source).mtimeMs <= statSync(target).mtimeMs);
}

/** The package of node-llama-cpp's own CPU libraries for this machine; the CUDA and Vulkan ones are left alone. */
function libraryFolder() {
  const name = `linux-${process.arch}`;
  const folder = join(here, "node_modules/@node-llama-cpp", name, "bins", name);
  if (process.platform !== "linux" || !existsSync(folder)) {
    throw new Error(
      `node-llama-cpp ships no CPU libraries for ${process.platform}-${process.arch} that this benchmark can use`,
    );
  }
  return folder;
}

function extractHeaders(llama, release) {
  const folder = join(cache, `llama.cpp-${release}`);
  const headers = [join(folder, "include"), join(folder, "ggml/include")];
  if (headers.every(existsSync)) return headers;
  rmSync(folder, { recursive: true, force: true });
  call("git", ["clone", "-q", "--no-checkout", join(llama, "gitRelease.bundle"), folder]);
  call("git", ["-C", folder, "checkout", "-q", "HEAD", "--", "include", "ggml/include"]);
  rmSync(join(folder, ".git"), { recursive: true });
  return headers;
}

/** Whether buildPeer() needs no network. */
export const isInstalled = () => existsSync(join(here, "node_modules/.package-lock.json"));

/** Installs and compiles; returns the folder of the libraries, the programs and the release of llama.cpp. */
export function buildPeer() {
  mkdirSync(cache, { recursive: true });
  const installed = join(here, "node_modules/.package-lock.json");
  if (!isFresh(installed, join(here, "package-lock.json"))) call("npm", ["ci", "--ignore-scripts"], { cwd: here });
  const llama = join(here, "node_modules/node-llama-cpp/llama");
  const { release } = JSON.parse(readFileSync(join(llama, "binariesGithubRelease.json"), "utf8"));
  const libraries = libraryFolder();
  const headers = extractHeaders(llama, release);
  // File names carry the release: libllama.v0.5.0.so
  const linked = readdirSync(libraries).filter((name) => /^lib(llama|ggml|ggml-base)(\.v[^/]*)?\.so$/.test(name));
  const compile = (name) => {
    const source = join(here, `${name}.cc`);
    const program = join(cache, name);
    if (!isFresh(program, source, installed)) {
      const flags = ["-O2", "-std=c++20", "-Wall", "-Wextra", ...headers.flatMap((folder) => ["-isystem", folder])];
      const link = [`-L${libraries}`, `-Wl,-rpath,${libraries}`, ...linked.map((library) => `-l:${library}`)];
      call(process.env.CXX ?? "c++", [...flags, source, "-o", program, ...link]);
    }
    return program;
  };
  return {
    ...{ libraries, release, bench: compile("llama_bench"), writer: compile("write_gguf") },
    ...{ generator: compile("llama_generate"), batch: compile("llama_batch") },
  };
}

/** Path of a GGUF file with random weights, written unless it is there; shape as in shapes.mjs. */
export function writeModel(peer, name, shape, format) {
  const path = join(cache, `${name}-${shape.layers}-${format}.gguf`);
  if (!isFresh(path, join(here, "write_gguf.cc"), join(here, "shapes.mjs"))) {
    call(peer.writer, [path, format, ...Object.entries(shape).map(([key, value]) => `${key}=${Number(value)}`)]);
  }
  return path;
}

/** Path of a GGUF file with the weights of a checkpoint, written unless it is there. */
export function convertModel(peer, folder, format) {
  const path = join(cache, `${basename(folder)}-${format}.gguf`);
  if (isFresh(path, join(here, "write_gguf.cc"), join(here, "checkpoint.mjs"), join(folder, "model.safetensors")))
    return path;
  const weights = `${path}.f32`;
  const shape = exportCheckpoint(folder, weights);
  call(peer.writer, [path, format, ...Object.entries(shape).map(([key, value]) => `${key}=${Number(value)}`), weights]);
  rmSync(weights);
  return path;
}
