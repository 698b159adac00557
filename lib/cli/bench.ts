// sdar bench: what this machine makes of a model. Each kind of measurement has a file of its own.
import { Command } from "commander";
import { dialCommand } from "./bench-dial.js";
import { forwardCommand } from "./bench-forward.js";
import { benchGenerateCommand } from "./bench-generate.js";
import { qualityCommand } from "./bench-quality.js";

export function benchCommand(): Command {
  const command = new Command("bench").description("Measures speed and quality on this machine");
  for (const make of [forwardCommand, benchGenerateCommand, qualityCommand, dialCommand]) command.addCommand(make());
  return command;
}
