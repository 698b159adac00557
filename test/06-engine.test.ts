import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import type { Binding, NativeEngine } from "../lib/binding.js";
import { loadBinding } from "../lib/binding.js";
import { packageRoot, shippedModelPath } from "../lib/checkpoint.js";
import { Engine } from "../lib/engine.js";
import type { GenerateRequest } from "../lib/index.js";
import { eventually } from "./eventually.js";
import { FakeNative, fakeEngine, fakeInfo, noCuda } from "./fake-binding.js";

type RejectsWanted = { code: string; message?: RegExp; option?: string; value?: unknown; allowed?: string };
const messages = [{ role: "user", content: "2+2" }];

t.test("prompts become tokens", async (t) => {
  const { engine, native } = await fakeEngine();
  engine.generate({ messages });
  engine.generate({ prompt: "<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n" });
  await eventually(t, () => native.requests.length, 2);
  const tokens = [5, 6, 7];
  engine.generate({ tokens });
  tokens[0] = 99;
  const [chat, raw, ids] = native.requests;
  t.same(chat?.tokens, raw?.tokens, "a conversation goes through the chat template");
  t.equal(chat?.tokens[0], 557);
  t.same(ids?.tokens, Int32Array.of(5, 6, 7), "ids are copied");
});

t.test("prompts that cannot be run", async (t) => {
  const { engine } = await fakeEngine();
  const rejects = (request: GenerateRequest, expected: RejectsWanted) =>
    t.rejects(engine.generate(request).result(), expected);
  await rejects({ prompt: "" }, { code: "EMPTY_PROMPT" });
  await rejects({ tokens: [] }, { code: "EMPTY_PROMPT" });
  await rejects({ tokens: [560] }, { code: "TOKEN_OUT_OF_RANGE", message: /tokens\[0\]: 560 .* from 0 to 559/ });
  await rejects({ tokens: new Array(64).fill(1) }, { code: "PROMPT_TOO_LONG" });
  await rejects(
    { prompt: "x", maxTokens: 0 },
    { code: "INVALID_OPTION", option: "maxTokens", value: 0, allowed: "an integer >= 1" },
  );
});

t.test("a checkpoint without tokenizer takes tokens", async (t) => {
  const path = t.testdir({ "config.json": "{}" });
  const { engine, native } = await fakeEngine({ path });
  t.match(engine.model, { path, hasTokenizer: false, hasChatTemplate: false });
  const missing = { code: "TOKENIZER_MISSING", message: /has no tokenizer\.json; give tokens instead/ };
  await t.rejects(engine.generate({ prompt: "x" }).result(), missing);
  await t.rejects(engine.generate({ messages }).result(), missing);
  const run = engine.generate({ tokens: [1] });
  native.tokens(1, [2, 3]);
  native.finish(1, "length");
  native.wake();
  for await (const chunk of run) t.match(chunk, { text: "", tokens: [{ id: 2 }, { id: 3 }] });
  t.equal((await run.result()).text, "");
});

t.test("a checkpoint without chat template takes prompts", async (t) => {
  const shipped = shippedModelPath();
  const path = t.testdir({ "tokenizer.json": t.fixture("symlink", join(shipped, "tokenizer.json")) });
  const { engine } = await fakeEngine({ path });
  t.match(engine.model, { hasTokenizer: true, hasChatTemplate: false });
  await t.rejects(engine.generate({ messages }).result(), {
    code: "TEMPLATE_MISSING",
    message: /give prompt or tokens/,
  });
  t.ok(engine.generate({ prompt: "x" }));
});

t.test("a chat template that cannot be used leaves prompts alone", async (t) => {
  const shipped = shippedModelPath();
  for (const chat_template of [
    "{% include 'x' %}",
    "{% if %}",
    [
      { name: "rag", template: "x" },
      { name: "tools", template: "x" },
    ],
  ]) {
    const path = t.testdir({
      "tokenizer.json": t.fixture("symlink", join(shipped, "tokenizer.json")),
      "tokenizer_config.json": JSON.stringify({ chat_template }),
    });
    const { engine } = await fakeEngine({ path });
    await t.rejects(engine.generate({ messages }).result(), { code: "TEMPLATE_FAILED", message: /tokenizer_config/ });
    t.ok(engine.generate({ prompt: "x" }));
  }
});

t.test("weights follow the checkpoint unless they are chosen", async (t) => {
  const root = t.testdir({});
  const tied = join(packageRoot, "test", "golden", "tiny-tied");
  const { torch_dtype: _, ...config } = JSON.parse(readFileSync(join(tied, "config.json"), "utf8"));
  const weights = async (config: string, options = {}) => {
    const folder = mkdtempSync(join(root, "checkpoint-"));
    cpSync(tied, folder, { recursive: true });
    writeFileSync(join(folder, "config.json"), config);
    await using engine = await Engine.load(folder, { device: "cpu", weightCache: false, ...options });
    return engine.model.weights;
  };
  const stored = (dtype: object) => JSON.stringify({ ...config, ...dtype });
  const full = stored({ torch_dtype: "float32" });
  t.equal(await weights(full), "f32");
  t.equal(await weights(stored({ dtype: "float32" })), "f32");
  t.equal(await weights(stored({ torch_dtype: "float16" })), "bf16");
  t.equal(await weights(full, { weights: "bf16" }), "bf16");
  await t.rejects(weights("{"), { code: "CONFIG_INVALID", message: /config\.json/ });
});

t.test("what the addon refuses is an SdarError of the run", async (t) => {
  const { engine, native } = await fakeEngine();
  native.refusal = Object.assign(new Error("needs 9 pages, there are 4"), { code: "CACHE_TOO_SMALL" });
  await t.rejects(engine.generate({ tokens: [1] }).result(), {
    name: "SdarError",
    code: "CACHE_TOO_SMALL",
    message: /9 pages/,
  });
  native.refusal = undefined;
  const run = engine.generate({ tokens: [1] });
  native.finish(native.requests[0]?.id as number, "end");
  native.wake();
  t.match(await run.result(), { finishReason: "end" }, "the engine goes on");
});

t.test("dispose rejects what runs, may be called again, and ends the engine", async (t) => {
  const { engine, native } = await fakeEngine();
  const run = engine.generate({ tokens: [1] });
  const waiting = run[Symbol.asyncIterator]().next();
  await Promise.all([engine.dispose(), engine.dispose(), t.rejects(waiting, { code: "DISPOSED" })]);
  await t.rejects(run.result(), { code: "DISPOSED" });
  await engine[Symbol.asyncDispose]();
  t.equal(native.closed, 1);
  await t.rejects(engine.generate({ tokens: [1] }).result(), { code: "DISPOSED" });
  t.throws(() => engine.stats(), { code: "DISPOSED" });
  native.wake();
  run.abort();
  t.equal(engine.model.layers, 1, "what was loaded can still be told");
});

/** A load that the test settles. */
function pendingLoad() {
  const pending = {
    native: undefined as FakeNative | undefined,
    cancelled: 0,
    resolve: () => {},
    progress: (_done: number, _total: number) => {},
  };
  let begin = () => {};
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const binding: Binding = {
    load(_settings, onProgress, onWake) {
      begin();
      const native = new FakeNative(onWake, fakeInfo);
      pending.native = native;
      pending.progress = onProgress;
      let fail = (_: Error) => {};
      const promise = new Promise<NativeEngine>((resolve, reject) => {
        pending.resolve = () => resolve(native);
        fail = reject;
      });
      const cancel = () => {
        pending.cancelled++;
        fail(Object.assign(new Error("cancelled"), { code: "ABORTED" }));
      };
      return { promise, cancel };
    },
    instructionSets: () => [],
    probeCuda: () => noCuda,
  };
  return { pending, begun, getBinding: () => binding };
}

t.test("loading: progress, log, and callbacks that throw", async (t) => {
  const { pending, begun, getBinding } = pendingLoad();
  const seen: unknown[] = [];
  const said: string[] = [];
  const loading = Engine.loadWith(getBinding, "sdar-nano", {
    onProgress: (progress) => {
      seen.push(progress);
      throw new Error("mine");
    },
    log: (level, message) => {
      said.push(`${level} ${message}`);
      throw new Error("mine too");
    },
  });
  await begun;
  pending.progress(1, 2);
  pending.resolve();
  const engine = await loading;
  t.same(
    seen,
    [
      { done: 1, total: 2 },
      { done: 2, total: 2 },
    ],
    "the last one is complete",
  );
  t.match(said, [/^warn onProgress threw: Error: mine/, /^warn/, /^info .*sdar-nano: 1000 parameters in bf16 on cpu/]);
  t.match(engine.model, { layers: 1, hasTokenizer: true, hasChatTemplate: true });
  t.ok(Object.isFrozen(engine.model));
});

t.test("a card that answers but is not computed on is told", async (t) => {
  const said: string[] = [];
  const cardProblem = "6 MiB for the KV cache do not fit on cuda:0";
  const options = { log: (level: string, message: string) => said.push(`${level} ${message}`) };
  const { engine } = await fakeEngine({ options, info: { cardProblem } });
  t.match(said, [/^warn .* is on the CPU, not on a GPU: 6 MiB for the KV cache do not fit on cuda:0$/, /^info /]);
  t.equal(engine.model.cardProblem, cardProblem);
});

t.test("loading can be given up", async (t) => {
  const { pending, begun, getBinding } = pendingLoad();
  const controller = new AbortController();
  const loading = Engine.loadWith(getBinding, "sdar-nano", { signal: controller.signal });
  await begun;
  controller.abort(new Error("changed my mind"));
  await t.rejects(loading, { code: "ABORTED", cause: { message: "changed my mind" } });
  t.ok(pending.cancelled);
  const never = () => t.fail("nothing is loaded") as never;
  await t.rejects(Engine.loadWith(never, "sdar-nano", { signal: AbortSignal.abort() }), { code: "ABORTED" });
});

t.test("a broken tokenizer stops the load and frees what was loaded", async (t) => {
  const path = t.testdir({ "tokenizer.json": "{" });
  const { pending, getBinding } = pendingLoad();
  await t.rejects(Engine.loadWith(getBinding, path), { code: "TOKENIZER_INVALID" });
  t.ok(pending.cancelled);

  const late = pendingLoad();
  const loading = Engine.loadWith(late.getBinding, "sdar-nano");
  await late.begun;
  const { native } = late.pending;
  if (native)
    native.setTokenBytes = () => {
      throw new Error("no room");
    };
  late.pending.resolve();
  await t.rejects(loading, { code: "INTERNAL", message: "no room" });
  t.equal(native?.closed, 1);
});

t.test("arguments of load", async (t) => {
  for (const bad of [undefined, 3, "", null]) {
    await t.rejects(Engine.load(bad as unknown as string), { code: "INVALID_OPTION", option: "pathOrId" });
  }
  await t.rejects(Engine.load("no/such-model"), { code: "MODEL_NOT_FOUND" });
  await t.rejects(Engine.load("sdar-nano", { threads: 0 }), { code: "INVALID_OPTION", option: "threads" });
});

t.test("an addon that is missing or does not load says how to build it", async (t) => {
  const dir = t.testdir({ empty: {}, broken: { build: { Release: { "sdar_node.node": "no addon" } } } });
  const advice = /npm run build:native.*CMake.*C\+\+20/;
  t.throws(() => loadBinding(join(dir, "empty")), { code: "NATIVE_MISSING", message: /none found for/ });
  t.throws(() => loadBinding(join(dir, "empty")), { message: advice });
  t.throws(() => loadBinding(join(dir, "broken")), {
    code: "NATIVE_MISSING",
    message: /sdar_node\.node does not load/,
  });
});
