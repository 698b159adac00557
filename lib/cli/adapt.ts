// sdar adapt: a model that denoises blocks out of an autoregressive one.
import { Command } from "commander";
import { defined } from "../defined.js";
import { type AdaptOptions, adapt } from "../train/index.js";
import { numeric, word } from "./generation.js";
import { numericList, runTraining, type TrainFlags, withTrainFlags } from "./training.js";

interface Flags
  extends TrainFlags,
    Pick<
      AdaptOptions,
      "from" | "recipe" | "blockLength" | "growth" | "views" | "complementary" | "fullMask" | "suffix" | "maskToken"
    > {
  lora?: number;
  loraAlpha?: number;
  loraTargets?: string[];
  loraFrozen?: string;
}

const list = (text: string): string[] => text.split(",");

export function adaptCommand(): Command {
  const command = new Command("adapt")
    .description("Trains an autoregressive checkpoint to denoise blocks (or any checkpoint further), from JSONL")
    .requiredOption("--from <model>", "checkpoint folder, hub id in the local cache, or the shipped model");
  return withTrainFlags(command, {
    learningRate: "0.256 / hidden size, at most 1e-3",
    weightDecay: "0.01",
    optimizer: "adamw",
    rows: "1024",
  })
    .optionsGroup("Objective:")
    .option(
      "--recipe <name>",
      "views, sdar (the published one) or autoregressive (default: views)",
      word("views", "sdar", "autoregressive"),
    )
    .option(
      "--block-length <n>",
      "positions denoised together; a list is drawn from (default: the model's, else 4)",
      numericList,
    )
    .option("--no-growth", "blocks of full length from the first step on, with --recipe views")
    .option("--views <n>", "noisy copies of an answer, with --recipe views (default: 2)", numeric)
    .option("--no-complementary", "each view draws its own masks")
    .option("--no-full-mask", "the first view masks any part of the answer as the others do, not all of it")
    .option("--suffix <share>", "of blocks whose last positions are masked, instead of any (default: 0)", numeric)
    .option("--mask-token <name>", "token that is to be the mask (default: the tokenizer's, else a new <|MASK|>)")
    .optionsGroup("LoRA:")
    .option("--lora <rank>", "train adapters of this rank, and the mask's embedding, instead of all weights", numeric)
    .option("--lora-alpha <a>", "adapters count alpha / rank times (default: twice the rank)", numeric)
    .option("--lora-targets <list>", "of q,k,v,o,gate,up,down (default: all)", list)
    .option(
      "--lora-frozen <type>",
      "how the other weights of layers are held: f32 or bf16 (default: f32)",
      word("f32", "bf16"),
    )
    .addHelpText("after", "\nExample:\n  sdar adapt --from Qwen3-0.6B --data chats.jsonl --to my-sdar --block-length 8")
    .action(({ json, ...flags }: Flags) => runTraining(json, (hooks) => adapt({ ...optionsOf(flags), ...hooks })));
}

/** Options as the library has them: those of LoRA are an object. */
function optionsOf({
  lora: rank,
  loraAlpha: alpha,
  loraTargets: targets,
  loraFrozen: frozen,
  growth,
  complementary,
  fullMask,
  ...others
}: Flags): AdaptOptions {
  // A flag of --no-… is true where it is not given: the library has defaults of its own.
  const unwanted = Object.entries({ growth, complementary, fullMask }).filter(([, wanted]) => !wanted);
  const options = { ...others, ...Object.fromEntries(unwanted) };
  const lora = defined({ rank, alpha, targets, frozen });
  return Object.keys(lora).length > 0 ? ({ ...options, lora } as AdaptOptions) : options;
}
