// Training as a product: a parent is made, adapted, and answers; runs that are killed; what is refused.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { shippedModelPath } from "../lib/checkpoint.js";
import { Engine } from "../lib/engine.js";
import { type AdaptOptions, adapt, type PretrainOptions, pretrain, type TrainStart } from "../lib/train/index.js";
import { eventually } from "./eventually.js";
import { main, sdar } from "./sdar.js";

const shape = { layers: 1, hidden: 32, heads: 2, kvHeads: 1, headDim: 16, intermediate: 64, context: 64 };
const animals = ["cat", "dog", "owl", "fox"];
const answers = ["meow", "woof", "hoot", "yip"];
const chat = (i: number) => ({
  messages: [
    { role: "user", content: `The ${animals[i % 4]}?` },
    { role: "assistant", content: answers[i % 4] },
  ],
});

function dataFile(t: Test, lines: readonly unknown[], name = "data.jsonl"): string {
  const file = join(t.testdir({}), name);
  writeFileSync(file, lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n"));
  return file;
}

const weights = (folder: string) => readFileSync(join(folder, "model.safetensors"));
const tiny = { shape, tokenizer: shippedModelPath(), rows: 256, seed: 3 };

t.test("pretrain, adapt, and the adapted model answers", async (t) => {
  const data = dataFile(
    t,
    Array.from({ length: 120 }, (_, i) => chat(i)),
  );
  const folder = join(data, "..");
  const [parent, to] = [join(folder, "parent"), join(folder, "adapted")];
  const starts: TrainStart[] = [];
  const seen: number[] = [];
  const made = await pretrain({
    ...{ ...tiny, data, to: parent, epochs: 4, heldOut: 0.1, learningRate: 1e-2, threads: 2 },
    onStart: (start) => starts.push(start),
    onProgress: ({ step, loss }) => {
      seen.push(step);
      t.ok(loss > 0);
    },
  });
  t.match(starts, [{ resumed: false, samples: 120, heldOutSamples: 12, stepsDone: 0, skipped: 0, cut: 0 }]);
  t.match(made, { folder: parent, run: `${parent}.run`, steps: seen.length });
  t.ok(made.loss < 2 && (made.heldOutLoss ?? 9) < 2, "it has learnt");
  const log = readFileSync(join(made.run, "log.jsonl"), "utf8").trim().split("\n");
  t.strictSame(
    log.map((line) => JSON.parse(line).step),
    seen,
  );
  t.match(readFileSync(join(made.run, "loss.svg"), "utf8"), /^<svg.*held out/s);
  t.match(JSON.parse(readFileSync(join(parent, "config.json"), "utf8")), { model_type: "qwen3", vocab_size: 560 });

  await adapt({ from: parent, data, to, epochs: 20, rows: 512, blockLength: 8, learningRate: 1e-2, recipe: "views" });
  await using engine = await Engine.load(to);
  t.match(engine.model, { blockLength: 8, decoding: "block_diffusion", maskTokenId: 559 });
  for (let i = 0; i < 4; i++) {
    const { messages } = chat(i);
    t.equal(await engine.generate({ messages: messages.slice(0, 1) as never }).text(), answers[i]);
  }
});
