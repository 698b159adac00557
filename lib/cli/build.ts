// sdar build: compiles the native addon where none of the package fits.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, existsSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import { loadBinding } from "../binding.js";
import { packageRoot } from "../checkpoint.js";
import { SdarError } from "../errors.js";

export function buildCommand(): Command {
  return new Command("build")
    .description("Compiles the native addon for this machine: needs CMake 3.20 and a C++20 compiler (GCC 11, Clang 14)")
    .option("--cuda", "compile the library of the CUDA kernels, too: needs nvcc 12.8 or newer")
    .addHelpText("after", "\nExamples:\n  sdar build\n  sdar build --cuda")
    .action(build);
}

async function build({ cuda }: { cuda?: boolean }): Promise<void> {
  try {
    accessSync(packageRoot, constants.W_OK);
  } catch (cause) {
    throw new SdarError("FILE_UNWRITABLE", `${packageRoot} cannot be written to; build as the user who installed it`, {
      cause,
    });
  }
  for (const script of ["build.mjs", ...(cuda ? ["cuda-library.mjs"] : [])]) {
    const file = join(packageRoot, "scripts", script);
    if (!existsSync(file)) throw new SdarError("FILE_NOT_FOUND", `${file} is missing: install the package again`);
    // It names what is missing, shows how far it is, and keeps a log in build/.
    const child = spawn(process.execPath, [file], { stdio: "inherit" });
    const [status] = await once(child, "close");
    if (status !== 0) {
      process.exitCode = 1;
      return;
    }
  }
  const { file, instructionSets } = loadBinding();
  process.stdout.write(`${file}: ${instructionSets().join(", ")}\n`);
}
