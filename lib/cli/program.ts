// All commands.
import { join } from "node:path";
import { Command, Help, type Option } from "commander";
import { packageRoot, readJson } from "../checkpoint.js";
import { adaptCommand } from "./adapt.js";
import { benchCommand } from "./bench.js";
import { buildCommand } from "./build.js";
import { cacheCommand } from "./cache.js";
import { chatCommand } from "./chat.js";
import { completionCommand } from "./completion.js";
import { doctorCommand } from "./doctor.js";
import { enqueueCommand } from "./enqueue.js";
import { evalCommand } from "./eval.js";
import { generateCommand } from "./generate.js";
import { inspectCommand } from "./inspect.js";
import { makeCheckpointCommand } from "./make-checkpoint.js";
import { pretrainCommand } from "./pretrain.js";
import { commandLines, prompts } from "./prompts.js";
import { pullCommand } from "./pull.js";
import { serveCommand } from "./serve.js";
import { workerCommand } from "./worker.js";

const commands = [
  generateCommand,
  chatCommand,
  inspectCommand,
  serveCommand,
  workerCommand,
  enqueueCommand,
  doctorCommand,
  pullCommand,
  buildCommand,
  cacheCommand,
  adaptCommand,
  pretrainCommand,
  evalCommand,
  benchCommand,
  makeCheckpointCommand,
  completionCommand,
];

const groups = {
  "Use:": ["generate", "chat", "serve", "inspect", "doctor"],
  "Queues:": ["worker", "enqueue"],
  "Keep in order:": ["pull", "build", "cache", "completion"],
  "Train:": ["adapt", "pretrain"],
  "Measure:": ["eval", "bench", "make-checkpoint"],
};

/** Errors are thrown, as commander's. */
export function makeProgram(): Command {
  const program = new Command("sdar")
    .description("Runs and trains SDAR block-diffusion language models on this machine")
    .version(String(readJson(join(packageRoot, "package.json"), "FILE_UNREADABLE")?.version))
    .addHelpText(
      "after",
      `\nExamples:\n  ${commandLines.slice(0, 3).join("\n  ")}\n  sdar generate --watch '${prompts[0].prompt}'\n  sdar chat\n  sdar doctor`,
    )
    .configureHelp({ optionDescription: describeOption })
    .showHelpAfterError("(sdar --help tells more)")
    .exitOverride();
  for (const make of commands) program.addCommand(inherit(make(), program));
  for (const [group, names] of Object.entries(groups))
    for (const command of program.commands) if (names.includes(command.name())) command.helpGroup(group);
  return program;
}

/** Lists as they are written on the command line. */
function describeOption(this: Help, option: Option): string {
  if (Array.isArray(option.defaultValue)) option.defaultValueDescription ??= option.defaultValue.join(",");
  return Help.prototype.optionDescription.call(this, option);
}

/** Gives a command, and the commands below it, the settings of the one above. */
function inherit(command: Command, parent: Command): Command {
  command.copyInheritedSettings(parent);
  for (const child of command.commands) inherit(child, command);
  return command;
}
