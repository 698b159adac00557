// sdar adapt: a model that denoises blocks out of an autoregressive one.
import { Command } from "commander";
import { type AdaptOptions, adapt } from "../train/index.js";
import { numeric, numericList, runTraining, type TrainFlags, withTrainFlags } from "./training.js";

type Flags = TrainFlags & Omit<AdaptOptions, keyof TrainFlags | "onStart" | "onProgress" | "signal">;

export function adaptCommand(): Command {
  const command = new Command("adapt")
    .description("Trains an autoregressive checkpoint to denoise blocks (or any checkpoint further), from JSONL")
    .requiredOption("--from <model>", "checkpoint folder, hub id in the local cache, or the shipped model");
  return withTrainFlags(command, { learningRate: "1e-4", weightDecay: "0.01" })
    .optionsGroup("Objective:")
    .option("--recipe <name>", "sdar (the published one), views or autoregressive (default: sdar)")
    .option(
      "--block-length <n>",
      "positions denoised together; a list is drawn from (default: the model's, else 4)",
      numericList,
    )
    .option("--views <n>", "noisy copies of an answer, with --recipe views (default: 4)", numeric)
    .option("--mask-token <name>", "token that is to be the mask (default: the tokenizer's, else a new <|MASK|>)")
    .addHelpText("after", "\nExample:\n  sdar adapt --from Qwen3-0.6B --data chats.jsonl --to my-sdar --block-length 8")
    .action(({ json, ...options }: Flags) => runTraining(json, (hooks) => adapt({ ...options, ...hooks })));
}
