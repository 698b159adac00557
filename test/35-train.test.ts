// Training as a product: a parent is made, adapted, and answers; runs that are killed; what is refused.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { packageRoot, shippedModelPath } from "../lib/checkpoint.js";
import { Engine } from "../lib/engine.js";
import {
  adapt,
  type GradientCase,
  type LossAndGradients,
  lossAndGradients,
  type PretrainOptions,
  pretrain,
  type TrainStart,
} from "../lib/train/index.js";
import { goldenModel } from "./golden.js";
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

function dataFile(folder: string, lines: readonly unknown[], name = "data.jsonl"): string {
  const file = join(folder, name);
  writeFileSync(file, lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n"));
  return file;
}

const sixty = Array.from({ length: 60 }, (_, i) => chat(i));
const weights = (folder: string) => readFileSync(join(folder, "model.safetensors"));
// On a machine that is busy, threads that wait for each other take long.
const tiny = { shape, tokenizer: shippedModelPath(), rows: 256, seed: 3, threads: 1, learningRate: 1e-3 };

t.test("pretrain, adapt, and the adapted model answers", async (t) => {
  const folder = t.testdir({});
  const data = dataFile(folder, sixty);
  const [parent, to] = [join(folder, "parent"), join(folder, "adapted")];
  const starts: TrainStart[] = [];
  const seen: number[] = [];
  const losses: number[] = [];
  const made = await pretrain({
    ...{ ...tiny, data, to: parent, epochs: 6, heldOut: 0.1, learningRate: 1e-2 },
    onStart: (start) => starts.push(start),
    onProgress: ({ step, loss }) => {
      seen.push(step);
      losses.push(loss);
    },
  });
  t.match(starts, [{ resumed: false, samples: 60, heldOutSamples: 6, stepsDone: 0, skipped: 0, cut: 0 }]);
  t.match(made, { folder: parent, run: `${parent}.run`, steps: seen.length });
  t.ok((losses[0] as number) > 6 && (made.loss ?? 9) < 2 && (made.heldOutLoss ?? 9) < 2, "it has learnt");
  const log = readFileSync(join(made.run, "log.jsonl"), "utf8").trim().split("\n");
  t.strictSame(
    log.map((line) => JSON.parse(line).step),
    seen,
  );
  t.match(readFileSync(join(made.run, "loss.svg"), "utf8"), /^<svg.*held out/s);
  t.match(JSON.parse(readFileSync(join(parent, "config.json"), "utf8")), { model_type: "qwen3", vocab_size: 560 });

  await adapt({
    from: parent,
    data,
    to,
    epochs: 40,
    rows: 512,
    blockLength: 8,
    learningRate: 1e-2,
    recipe: "views",
    threads: 1,
  });
  await using engine = await Engine.load(to);
  t.match(engine.model, { blockLength: 8, decoding: "block_diffusion", maskTokenId: 559 });
  for (let i = 0; i < 4; i++) {
    const { messages } = chat(i);
    t.equal(await engine.generate({ messages: messages.slice(0, 1) as never }).text(), answers[i]);
  }

  // Weights that are too large.
  const file = join(parent, "model.safetensors");
  writeFileSync(file, Buffer.concat([readFileSync(file).subarray(0, -64), Buffer.alloc(64, "617f", "hex")]));
  const broken = join(folder, "broken");
  await t.rejects(adapt({ from: parent, data, to: broken, rows: 512, threads: 1 }), {
    code: "NUMERIC_ERROR",
    message: /^.* is -?(nan|inf) at step 0, batch 0; .*broken\.run keeps what 0 steps have made/,
  });
  t.ok(existsSync(`${broken}.run/state`));
  t.notOk(existsSync(broken));
});

t.test("a run that is killed, or aborted, goes on and ends with the same bytes", async (t) => {
  const folder = t.testdir({});
  const data = dataFile(folder, sixty);
  const options = { ...tiny, data, epochs: 6, rows: 128 };
  const undisturbed = join(folder, "undisturbed");
  const { steps } = await pretrain({ ...options, to: undisturbed });

  const to = join(folder, "killed");
  const shapeFlag = Object.entries(shape)
    .map((size) => size.join("="))
    .join();
  const flags = ["--shape", shapeFlag, "--tokenizer", shippedModelPath(), "--data", data, "--to", to];
  const command = [
    "pretrain",
    ...flags,
    ..."--epochs 6 --rows 128 --seed 3 --save-seconds 0 --threads 1 --learning-rate 1e-3".split(" "),
  ];
  const child = spawn(process.execPath, [main, ...command], { stdio: "ignore" });
  const log = join(`${to}.run`, "log.jsonl");
  const begun = () => existsSync(log) && readFileSync(log, "utf8").split("\n").length > 3;
  for (let i = 0; i < 6000 && !begun(); i++) await sleep(10);
  child.kill("SIGKILL");
  await once(child, "close");
  t.notOk(existsSync(to));
  const resumed = await sdar(command);
  t.match(resumed, { status: 0, stdout: new RegExp(`: ${steps} steps in `), stderr: /goes on after step \d+ of/ });
  t.ok(weights(to).equals(weights(undisturbed)), "killed");

  const stop = new AbortController();
  const aborted = { ...options, to: join(folder, "aborted") };
  const onProgress = ({ step }: { step: number }) => step === 4 && stop.abort();
  await t.rejects(pretrain({ ...aborted, onProgress, signal: stop.signal }), {
    code: "ABORTED",
    message: new RegExp(`aborted after step 4 of ${steps}; .*aborted.run has it`),
  });
  let first = 0;
  await pretrain({ ...aborted, onProgress: ({ step }) => (first ||= step) });
  t.equal(first, 5);
  t.ok(weights(aborted.to).equals(weights(undisturbed)), "aborted");

  const refused = (change: Partial<PretrainOptions>, message: RegExp) =>
    t.rejects(pretrain({ ...aborted, to: join(folder, "other"), run: `${aborted.to}.run`, ...change }), {
      code: "INVALID_OPTION",
      message,
    });
  await refused(
    { learningRate: 1e-4 },
    /^learningRate: the run in .*aborted.run was begun with 0.001, not 0.0001; give/,
  );
  await refused(
    { data: dataFile(folder, [chat(0)], "others.jsonl") },
    /^data: the run in .* was begun with other contents/,
  );
});

t.test("adapters, Muon, averages and bf16 go on with the same bytes, too, whatever the threads", async (t) => {
  const folder = t.testdir({});
  const data = dataFile(folder, sixty.slice(0, 24));
  const from = join(folder, "parent");
  await pretrain({ ...tiny, data, to: from });
  const lora = { rank: 2, targets: ["q", "down"], frozen: "bf16" } as const;
  for (const [name, change] of Object.entries({
    lora: { lora, ema: 0.9, compute: "bf16", recipe: "views", blockLength: [8, 4] },
    muon: { optimizer: "muon", ema: 0.9, accumulate: 2, fullMask: true },
  } as const)) {
    const options = { from, data, epochs: 3, rows: 128, ...change };
    const [whole, parts] = [join(folder, name), join(folder, `${name}-parts`)];
    const starts: TrainStart[] = [];
    await adapt({ ...options, to: whole, threads: 1, onStart: (start) => starts.push(start) });
    t.match(starts, [{ resumed: false, trained: name === "lora" ? 2 * (32 + 32) + 2 * (64 + 32) + 32 : 27_264 }]);
    const stop = new AbortController();
    const aborted = { ...options, to: parts, onProgress: ({ step }: { step: number }) => step === 2 && stop.abort() };
    await t.rejects(adapt({ ...aborted, signal: stop.signal }), { code: "ABORTED" });
    const { steps } = await adapt({ ...aborted, threads: 2 });
    t.ok(steps > 3 && weights(parts).equals(weights(whole)), name);
    t.notOk(weights(whole).equals(weights(from)), "something was learnt");
  }
});

t.test("losses and gradients are those of the reference", async (t) => {
  const file = join(packageRoot, "test/golden/train-tiny-ar.json");
  const { cases } = JSON.parse(readFileSync(file, "utf8")) as { cases: (GradientCase & LossAndGradients)[] };
  for (const each of cases) {
    const { loss, gradients } = await lossAndGradients(goldenModel("tiny-ar"), each);
    t.ok(Math.abs(loss - each.loss) < 1e-4 * each.loss);
    for (const [name, { norm, first }] of Object.entries(each.gradients)) {
      const ours = gradients[name];
      const far = first.some((g, i) => Math.abs(g - (ours?.first[i] as number)) > 2e-3 * (norm + 1e-6));
      if (far || Math.abs((ours?.norm as number) - norm) > 1e-3 * norm) t.fail(name);
    }
  }
  const first = cases[0] as GradientCase;
  await t.rejects(lossAndGradients("sdar-nano", { ...first, p: [] }), {
    message: /^p: this list .*a number for each sample/,
  });
  await t.rejects(lossAndGradients("sdar-nano", { ...first, ids: [[1]] }), { message: /^answer: this list/ });
});

t.test("what cannot be trained on is refused by name", async (t) => {
  const folder = t.testdir({ taken: {}, other: { "file.txt": "" }, empty: "", full: {} });
  const long = { text: "1 ".repeat(100) };
  const good = dataFile(folder, [chat(0), chat(1)], "good.jsonl");
  const bad = dataFile(folder, [chat(0), "", { say: "x" }, 7, long], "bad.jsonl");

  let number = 0;
  const options = (): PretrainOptions => ({ ...tiny, data: good, to: join(folder, `to-${number++}`) });
  const cases: [change: Partial<PretrainOptions>, code: string, message: RegExp][] = [
    [{ data: join(folder, "none.jsonl") }, "FILE_NOT_FOUND", /none\.jsonl/],
    [{ data: join(folder, "empty") }, "DATA_INVALID", /empty: has no line/],
    [{ data: bad }, "DATA_INVALID", /bad\.jsonl:3: has none of messages.*; also wrong: \S+bad.jsonl:4,5$/],
    [{ to: join(folder, "taken") }, "INVALID_OPTION", /^to: .*give a folder that does not exist yet/],
    [{ run: join(folder, "other") }, "INVALID_OPTION", /^run: .*other exists and is no run \(it holds file\.txt\)/],
    [{ vocabSize: 100 }, "INVALID_OPTION", /^vocabSize: 100 is not allowed; give at least 560/],
    [{ tokens: 5, epochs: 2 }, "INVALID_OPTION", /^tokens: 5 .*either it or epochs/],
    [{ shape: { ...shape, kvHeads: 3 } }, "INVALID_OPTION", /^shape\.kvHeads: 3 .*a divisor of heads, 2/],
    [{ heldOut: 0.9 }, "INVALID_OPTION", /^heldOut: 0.9 .*from 0 to 0.5/],
    [{ tokenizer: join(folder, "taken") }, "TOKENIZER_MISSING", /taken has no tokenizer\.json/],
  ];
  for (const [change, code, message] of cases)
    await t.rejects(pretrain({ ...options(), ...change }), { code, message }, String(message));

  const masked = (more: object) =>
    adapt({ from: "sdar-nano", data: good, to: join(folder, "x"), fullMask: true, ...more });
  await t.rejects(masked({ views: 1 }), { message: /^fullMask: true .*it with 2 views or more/ });
  await t.rejects(masked({ recipe: "sdar" }), { message: /^fullMask: true .*it with recipe: "views"/ });

  // A parent whose tokenizer has a token for every id.
  const full = join(folder, "full");
  const edit = (name: string, change: (json: Record<string, unknown>) => object) =>
    writeFileSync(
      join(full, name),
      JSON.stringify(change(JSON.parse(readFileSync(join(shippedModelPath(), name), "utf8")))),
    );
  edit("config.json", (json) => ({ ...json, model_type: "qwen3", mask_token_id: undefined }));
  edit("tokenizer_config.json", (json) => ({ ...json, mask_token: undefined }));
  edit("tokenizer.json", (json) => JSON.parse(JSON.stringify(json).replaceAll("<|MASK|>", "<|odd|>")));
  await t.rejects(adapt({ from: full, data: good, to: join(folder, "x") }), {
    code: "TOKENIZER_INVALID",
    message: /none of the model's 560 ids free for the mask/,
  });
});
