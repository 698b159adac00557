// sdar bench: what this machine makes of a model. Each kind of measurement has a file of its own.
import { Command } from "commander";
import { forwardCommand } from "./bench-forward.js";
import { benchGenerateCommand } from "./bench-generate.js";
import { benchLatencyCommand } from "./bench-latency.js";
import { qualityCommand } from "./bench-quality.js";
import { benchServeCommand } from "./bench-serve.js";

export function benchCommand(): Command {
  const command = new Command("bench").description("Measures speed and quality on this machine");
  const commands = [forwardCommand, benchGenerateCommand, qualityCommand, benchServeCommand, benchLatencyCommand];
  for (const make of commands) command.addCommand(make());
  return command;
}
