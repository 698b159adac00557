// sdar bench: what this machine makes of a model. Each kind of measurement has a file of its own.
import { Command } from "commander";
import { dialCommand } from "./bench-dial.js";
import { forwardCommand } from "./bench-forward.js";
import { benchGenerateCommand } from "./bench-generate.js";
import { benchLatencyCommand } from "./bench-latency.js";
import { qualityCommand } from "./bench-quality.js";
import { benchServeCommand } from "./bench-serve.js";

export function benchCommand(): Command {
  const command = new Command("bench").description("Measures speed and quality on this machine");
  const makers = [
    forwardCommand,
    benchGenerateCommand,
    qualityCommand,
    dialCommand,
    benchServeCommand,
    benchLatencyCommand,
  ];
  for (const make of makers) command.addCommand(make());
  return command;
}
