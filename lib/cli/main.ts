#!/usr/bin/env node
// The command `sdar`. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (143, 129: by SIGTERM, SIGHUP).
import { join } from "node:path";
import { Command, CommanderError } from "commander";
import { packageRoot, readJson } from "../checkpoint.js";
import { SdarError } from "../errors.js";
import { adaptCommand } from "./adapt.js";
import { benchCommand } from "./bench.js";
import { buildCommand } from "./build.js";
import { cacheCommand } from "./cache.js";
import { doctorCommand } from "./doctor.js";
import { generateCommand } from "./generate.js";
import { makeCheckpointCommand } from "./make-checkpoint.js";
import { pretrainCommand } from "./pretrain.js";
import { commandLines, prompts } from "./prompts.js";
import { serveCommand } from "./serve.js";
import { exitOnSignals } from "./signals.js";

const commands = [
  generateCommand,
  serveCommand,
  doctorCommand,
  buildCommand,
  cacheCommand,
  adaptCommand,
  pretrainCommand,
  benchCommand,
  makeCheckpointCommand,
];

exitOnSignals();

// Whoever reads our output may stop reading: that is no error. A full disk is.
for (const [name, stream] of Object.entries({ output: process.stdout, error: process.stderr })) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit();
    if (stream === process.stdout) process.stderr.write(`sdar: standard ${name}: ${error.message}\n`);
    process.exit(1);
  });
}

const program = new Command("sdar")
  .description("Runs and trains SDAR block-diffusion language models on this machine")
  .version(String(readJson(join(packageRoot, "package.json"), "FILE_UNREADABLE")?.version))
  .addHelpText(
    "after",
    `\nExamples:\n  ${commandLines.slice(0, 3).join("\n  ")}\n  sdar generate --watch '${prompts[0].prompt}'\n  sdar doctor`,
  )
  .showHelpAfterError("(sdar --help tells more)")
  .exitOverride();
for (const make of commands) program.addCommand(inherit(make(), program));
for (const [group, names] of Object.entries({
  "Use:": ["generate", "serve", "doctor"],
  "Keep in order:": ["build", "cache"],
  "Train:": ["adapt", "pretrain"],
  "Measure:": ["bench", "make-checkpoint"],
}))
  for (const command of program.commands) if (names.includes(command.name())) command.helpGroup(group);

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = report(error);
}
// Nothing goes on in the background of what was interrupted.
if (Number(process.exitCode) > 128) process.exit();

/** Gives a command, and the commands below it, the settings of the one above. */
function inherit(command: Command, parent: Command): Command {
  command.copyInheritedSettings(parent);
  for (const child of command.commands) inherit(child, command);
  return command;
}

/** Prints one line, unless commander did, and returns the exit code. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const message = error instanceof Error ? error.message : String(error);
  // What is wrong, and what to do about it.
  const lines = SdarError.is(error, "NATIVE_MISSING") ? message.replace("; build it", "\nsdar: build it") : message;
  process.stderr.write(`sdar: ${lines}\n`);
  return error instanceof SdarError && error.code === "INVALID_OPTION" ? 2 : 1;
}
