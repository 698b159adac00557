#!/usr/bin/env node
// The command `sdar`. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (143, 129: by SIGTERM, SIGHUP).
import { CommanderError } from "commander";
import { SdarError } from "../errors.js";
import { makeProgram } from "./program.js";
import { exitOnSignals } from "./signals.js";

exitOnSignals();

// Whoever reads our output may stop reading: that is no error. A full disk is.
for (const [name, stream] of Object.entries({ output: process.stdout, error: process.stderr })) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit();
    if (stream === process.stdout) process.stderr.write(`sdar: standard ${name}: ${error.message}\n`);
    process.exit(1);
  });
}

const program = makeProgram();

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = report(error);
}
// Nothing goes on in the background of what was interrupted.
if (Number(process.exitCode) > 128) process.exit();

/** Prints one line, unless commander did, and returns the exit code. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const message = error instanceof Error ? error.message : String(error);
  // What is wrong, and what to do about it.
  const lines = SdarError.is(error, "NATIVE_MISSING") ? message.replace("; build it", "\nsdar: build it") : message;
  process.stderr.write(`sdar: ${lines}\n`);
  return error instanceof SdarError && error.code === "INVALID_OPTION" ? 2 : 1;
}
