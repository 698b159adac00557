// Runs CMake for the other scripts: picks the generator, the number of jobs, and turns the build's output into progress lines.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism, freemem, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = join(dirname(fileURLToPath(import.meta.url)), "..");
export const has = (command) => spawnSync(command, ["--version"], { stdio: "ignore" }).status === 0;

/** Whether the script at `url` is the one that node was started with, by whatever links. */
export const isMain = (url) => process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(url);

export class BuildError extends Error {}

/** For the top level of a script: a failed build ends it with the message alone. */
export async function orExit(work) {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    console.error(error.message);
    process.exit(1);
  }
}

/** A digest of sources (files and folders below the project), so that what is up to date is not built again. */
export function digestOf(paths, settings = "") {
  const hash = createHash("sha256").update(`${process.platform} ${process.arch} ${settings}`);
  const add = (path) => {
    const full = join(root, path);
    if (!existsSync(full)) return;
    if (!statSync(full).isDirectory()) return hash.update(`${path}\n`).update(readFileSync(full));
    for (const name of readdirSync(full).sort()) add(join(path, name));
  };
  for (const path of paths) add(path);
  return hash.digest("hex");
}

const advice = `To compile the native part of sdar-engine, install CMake 3.20 or newer and a C++20 compiler (GCC 11, Clang 14, Xcode 15 or newer), then run the command again:
  Debian, Ubuntu:  sudo apt-get install cmake g++ make
  Fedora, RHEL:    sudo dnf install cmake gcc-c++ make
  macOS:           xcode-select --install && brew install cmake`;

/** One job per core, but no more than 1.5 GB of memory each allows: a compiler that is killed says little. */
function jobs() {
  const limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
    .filter(existsSync)
    .map((file) => Number(readFileSync(file, "utf8")))
    .find(Number.isFinite);
  const memory = Math.min(limit ?? totalmem(), Math.max(freemem(), totalmem() / 2));
  return Math.max(1, Math.min(availableParallelism(), Math.floor(memory / 1.5e9)));
}

/** Runs one command, all output into the log; calls onLine for each line. */
function run(command, args, log, onLine = () => {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, env: { ...process.env, NINJA_STATUS: "[%p] " } });
    let rest = "";
    const take = (chunk) => {
      appendFileSync(log, chunk);
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      for (const line of lines) onLine(line);
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.on("error", reject);
    child.on("close", (code, signal) => resolve(code ?? signal));
  });
}

/** The part of a compiler's output that tells what is wrong. */
function errorTail(log) {
  const lines = readFileSync(log, "utf8").trimEnd().split("\n");
  const first = lines.findIndex((line) => /error:|CMake Error|ld returned|Killed/.test(line));
  return lines.slice(first < 0 ? -40 : Math.max(0, first - 2), first < 0 ? undefined : first + 38).join("\n");
}

/** Configures and builds `folder` (below the project) with -D `options`; throws BuildError with advice or the compiler's words. */
export async function cmake(folder, options, { label, targets = [] }) {
  if (!has("cmake")) throw new BuildError(`CMake was not found.\n${advice}`);
  const build = join(root, folder);
  const log = join(build, "build.log");
  mkdirSync(build, { recursive: true });
  const configure = ["-S", root, "-B", build, ...Object.entries(options).map(([key, value]) => `-D${key}=${value}`)];
  const cache = join(build, "CMakeCache.txt");
  // A cache that came along when the project's folder moved is of no use.
  if (existsSync(cache) && !readFileSync(cache, "utf8").includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${root}\n`)) {
    rmSync(build, { recursive: true });
    mkdirSync(build);
  }
  writeFileSync(log, "");
  if (!existsSync(cache)) {
    if (has("ninja")) configure.push("-G", "Ninja");
    if (has("ccache")) configure.push("-DCMAKE_CXX_COMPILER_LAUNCHER=ccache", "-DCMAKE_CUDA_COMPILER_LAUNCHER=ccache");
  }
  console.log(`${label}: configuring`);
  if ((await run("cmake", configure, log)) !== 0) {
    const text = readFileSync(log, "utf8");
    rmSync(cache, { force: true });
    const missing = /No CMAKE_CXX_COMPILER could be found|CMAKE_MAKE_PROGRAM is not set|dialect|or higher is required/i;
    const reason = missing.test(text)
      ? `CMake is too old, or found no C++20 compiler, or neither make nor ninja.\n${advice}`
      : `CMake could not configure the build.\n${errorTail(log)}`;
    throw new BuildError(`${label}: ${reason}\nThe full log is ${log}`);
  }
  const start = Date.now();
  let shown = 0;
  const progress = (line) => {
    const percent = Number(/^\[\s*(\d+)%\]/.exec(line)?.[1] ?? 0);
    if (percent < shown + 10) return;
    shown = percent;
    console.log(`${label}: ${percent} %`);
  };
  const args = ["--build", build, "--parallel", String(jobs())];
  if (targets.length > 0) args.push("--target", ...targets);
  const status = await run("cmake", args, log, progress);
  if (status !== 0) {
    throw new BuildError(`${label}: the compiler failed (${status}).\n${errorTail(log)}\nThe full log is ${log}`);
  }
  console.log(`${label}: built in ${((Date.now() - start) / 1000).toFixed(1)} s`);
  return build;
}
