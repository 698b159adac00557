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
import { interruptible } from "./signals.js";

/** Of each kind. */
const examples: Record<string, string[]> = {
  forward: ["", "--shape sdar-1.7b --weights int8 --json"],
  generate: ["", "-m ./my-model --weights int8"],
  compare: ["--sdar sdar-nano --ar models/qwen3-nano --prompts prompts.jsonl"],
  quality: ["--weights int8,int4 --limit 100", "-m ./my-model --prompts prompts.jsonl"],
  dial: ["--strategies low_confidence_dynamic,pairwise_factor --svg dial.svg"],
  serve: ["", "-m ./my-model --json"],
  latency: ["", "-m ./my-model --json"],
  adapt: ["--out ./adapted --samples 20000"],
};

export function benchCommand(): Command {
  const command = new Command("bench")
    .description("Measures speed and quality on this machine")
    .addHelpText("after", "\nExamples:\n  sdar bench generate\n  sdar bench serve --json");
  const makers = [
    forwardCommand,
    generateCommand,
    compareCommand,
    qualityCommand,
    dialCommand,
    serveCommand,
    latencyCommand,
    () => adaptCommand(interruptible),
  ];
  for (const make of makers) {
    const one = make();
    const lines = (examples[one.name()] ?? []).map((args) => `  sdar bench ${one.name()} ${args}`.trimEnd());
    command.addCommand(one.addHelpText("after", `\nExamples:\n${lines.join("\n")}`));
  }
  return command;
}
