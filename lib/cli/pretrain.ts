// sdar pretrain: a small autoregressive model from random weights.
import { Command, InvalidArgumentError } from "commander";
import { type PretrainOptions, pretrain, type Shape } from "../train/index.js";
import { numeric } from "./generation.js";
import { runTraining, type TrainFlags, withTrainFlags } from "./training.js";

type Flags = TrainFlags & Omit<PretrainOptions, keyof TrainFlags | "onStart" | "onProgress" | "signal">;

export function pretrainCommand(): Command {
  const command = new Command("pretrain")
    .description("Trains an autoregressive model from random weights: a small parent for sdar adapt")
    .requiredOption("--shape <shape>", "nano, or sizes: layers=6,hidden=256,heads=4,kvHeads=2,headDim=64,…", shape)
    .requiredOption("--tokenizer <folder>", "folder of tokenizer.json and the chat template");
  return withTrainFlags(command, { learningRate: "6e-3", weightDecay: "0.05", optimizer: "muon", rows: "4096" })
    .optionsGroup("Model:")
    .option("--vocab-size <n>", "ids of the model (default: the tokenizer's, and room for a mask)", numeric)
    .addHelpText(
      "after",
      "\nSizes: layers, hidden, heads, kvHeads, headDim, intermediate, context; tied (true or false), ropeTheta" +
        "\nExample:\n  sdar pretrain --shape nano --tokenizer models/sdar-nano --data texts.jsonl --to my-parent",
    )
    .action(({ json, ...options }: Flags) => runTraining(json, (hooks) => pretrain({ ...options, ...hooks })));
}

/** Sizes are judged by the library. */
function shape(text: string): "nano" | Shape {
  if (text === "nano") return text;
  const sizes = text.split(",").map((size) => /^(\w+)=([\w.+-]+)$/.exec(size) ?? []);
  if (sizes.some(({ length }) => length === 0)) throw new InvalidArgumentError("Give nano, or sizes as name=number,….");
  const value = (size = "") => (size === "true" || size === "false" ? size === "true" : numeric(size));
  return Object.fromEntries(sizes.map(([, name, size]) => [name, value(size)])) as unknown as Shape;
}
