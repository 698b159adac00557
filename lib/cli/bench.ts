// sdar bench: what this machine makes of a model. Each kind of measurement is a file of lib/bench.
import { Command } from "commander";
import { adaptCommand } from "../bench/adapt.js";
import { compareCommand } from "../bench/compare.js";
import { dialCommand } from "../bench/dial.js";
import { forwardCommand } from "../bench/forward.js";
import { generateCommand } from "../bench/generate.js";
import { latencyCommand } from "../bench/latency.js";
import { qualityCommand } from "../bench/quality.js";
import { serveCommand } from "../bench/serve.js";

export function benchCommand(): Command {
  const command = new Command("bench").description("Measures speed and quality on this machine");
  const makers = [
    forwardCommand,
    generateCommand,
    compareCommand,
    qualityCommand,
    dialCommand,
    serveCommand,
    latencyCommand,
    adaptCommand,
  ];
  for (const make of makers) command.addCommand(make());
  return command;
}
