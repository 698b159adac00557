import { spawnSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import t from "tap";
import { packageRoot } from "../lib/checkpoint.js";
import { Engine, type GenerateOptions, type GenerateRequest } from "../lib/index.js";
import { eventually } from "./eventually.js";

const question = { messages: [{ role: "user", content: "Count the atoms in Ca3(PO4)2" }] };
/** runs until the context is full */
const long: GenerateRequest = { prompt: "a", ignoreEos: true, denoise: { strategy: "sequential" } };
const entry = pathToFileURL(`${packageRoot}dist/index.js`).href;

t.test("with one engine", async (t) => {
  const engine = await Engine.load("sdar-nano");
  t.teardown(() => engine.dispose());

  await t.test("a question is answered, streamed and counted", async (t) => {
    const run = engine.generate(question);
    let text = "";
    for await (const chunk of run) text += chunk.text;
    const result = await run.result();
    t.match(result, { text: "Ca 3, P 2, O 8", finishReason: "end" });
    t.equal(text, result.text);
    t.equal(result.usage.completionTokens, result.tokens.length);
    t.equal(result.usage.tokensPerForward, result.tokens.length / result.usage.forwards);
    t.ok(result.usage.tokensPerForward > 1);
  });

  await t.test("stop strings, stop tokens, end tokens, minimum and bias", async (t) => {
    const answer = (options: GenerateOptions) => engine.generate({ ...question, ...options }).result();
    t.match(await answer({ stop: ", P" }), { text: "Ca 3", finishReason: "stop", stopMatched: ", P" });
    t.match(await answer({ stop: ["zzz", "3"] }), { text: "Ca ", finishReason: "stop", stopMatched: "3" });
    const { tokens } = await answer({});
    const third = tokens[2]?.id as number;
    const stopped = await answer({ stopTokens: [third] });
    t.match(stopped, { finishReason: "stop", stopMatched: third });
    t.equal(stopped.tokens.at(-1)?.id, third);
    t.match(await answer({ maxTokens: 3 }), { finishReason: "length", tokens: { length: 3 } });
    t.match(await answer({ ignoreEos: true, maxTokens: 40 }), { finishReason: "length", tokens: { length: 40 } });
    const later = await answer({ minTokens: 30, maxTokens: 60 });
    t.ok(
      later.tokens.length >= 30 && !later.tokens.slice(0, 29).some(({ id }) => engine.model.endTokenIds.includes(id)),
    );
    const biased = await answer({ logitBias: { [third]: -100 } });
    t.notOk(biased.tokens.some(({ id }) => id === third));
  });

  await t.test("drafts end as the result says", async (t) => {
    const run = engine.generate({ ...question, drafts: true });
    const last = new Map<number, { id: number; step: number | null } | null>();
    let drafts = 0;
    for await (const { draft } of run) {
      if (!draft) continue;
      drafts++;
      for (const [i, token] of draft.tokens.entries()) {
        const before = last.get(draft.position + i);
        if (before) t.match(token, { id: before.id, step: before.step }, "a filled token never changes");
        last.set(draft.position + i, token);
      }
    }
    const { tokens, usage } = await run.result();
    t.equal(drafts, usage.forwards, "one for each step");
    for (const { id, position, step } of tokens) t.match(last.get(position), { id, step });
  });

  await t.test("abort, dropped iterators and exceptions in the loop", async (t) => {
    const aborted = engine.generate(long);
    for await (const { tokens } of aborted) if (tokens.length > 0) aborted.abort();
    const { finishReason, tokens, usage } = await aborted.result();
    t.equal(finishReason, "abort");
    t.ok(tokens.length > 0 && tokens.length < 900 && usage.completionTokens === tokens.length);

    const atOnce = engine.generate(long);
    atOnce.abort();
    t.match(await atOnce.result(), { finishReason: "abort" });

    const left = engine.generate(long);
    for await (const _ of left) break;
    t.match(await left.result(), { finishReason: "abort" });

    const thrown = engine.generate(long);
    const consume = async () => {
      for await (const _ of thrown) throw new Error("consumer");
    };
    await t.rejects(consume(), { message: "consumer" });
    t.match(await thrown.result(), { finishReason: "abort" });

    const dropped = engine.generate({ ...long, maxTokens: 60 });
    await dropped[Symbol.asyncIterator]().next();
    t.match(await dropped.result(), { finishReason: "length" }, "one that is only forgotten goes on");

    const timed = await engine.generate({ ...long, signal: AbortSignal.timeout(20) }).result();
    t.equal(timed.finishReason, "abort");
    await eventually(t, () => engine.stats(), { running: 0, waiting: 0 });
    const { total, free, cached } = engine.stats().pages;
    t.equal(free + cached, total, "all pages are back");
  });
});

t.test("dispose while running", async (t) => {
  const engine = await Engine.load("sdar-nano");
  const runs = Array.from({ length: 20 }, () => engine.generate(long));
  const iterated = (async () => {
    for await (const _ of runs[0] as (typeof runs)[0]);
  })();
  await sleep(20);
  const disposed = engine.dispose();
  await t.rejects(iterated, { code: "DISPOSED" });
  for (const run of runs) await t.rejects(run.result(), { code: "DISPOSED" });
  await disposed;
  await t.rejects(engine.generate(question).result(), { code: "DISPOSED" });
});

t.test("two engines in one process are independent", async (t) => {
  const [a, b] = await Promise.all([Engine.load("sdar-nano"), Engine.load("sdar-nano", { weights: "f32" })]);
  const pending = b.generate(question);
  await a.dispose();
  t.match(await pending.result(), { text: "Ca 3, P 2, O 8" });
  await b.dispose();
});

t.test("loading again and again, given up or not", async (t) => {
  for (let i = 0; i < 5; i++) {
    const controller = new AbortController();
    const loading = Engine.load("sdar-nano", { signal: controller.signal });
    controller.abort();
    await t.rejects(loading, { code: "ABORTED" });
    await (await Engine.load("sdar-nano")).dispose();
  }
  const progress: { done: number; total: number }[] = [];
  const engine = await Engine.load("sdar-nano", { onProgress: (p) => progress.push(p) });
  await engine.dispose();
  t.ok(
    progress.every(({ done, total }) => done >= 0 && done <= total),
    "the first report may be of nothing",
  );
  t.equal(progress.at(-1)?.done, progress.at(-1)?.total);
});

t.test("what is disposed of is freed", async (t) => {
  const cycle = async (times: number) => {
    for (let i = 0; i < times; i++) {
      const engine = await Engine.load("sdar-nano", { weights: "f32" });
      await engine.generate(question).result();
      await engine.dispose();
    }
    return process.memoryUsage().rss / 2 ** 20;
  };
  const before = await cycle(4);
  const grown = (await cycle(12)) - before;
  t.ok(grown < 100, `12 engines of more than 17 MiB each left ${grown.toFixed(0)} MiB`);
});

const worker = (body: string) =>
  new Worker(
    `import { parentPort } from "node:worker_threads";
     import { Engine } from ${JSON.stringify(entry)};
     const engine = await Engine.load("sdar-nano");
     ${body}`,
    { eval: true, execArgv: ["--input-type=module"] },
  );

t.test("worker threads", async (t) => {
  const request = JSON.stringify(question);
  const answers = await Promise.all(
    Array.from(
      { length: 3 },
      () =>
        new Promise((resolve, reject) => {
          const w = worker(
            `parentPort.postMessage((await engine.generate(${request}).result()).text); await engine.dispose();`,
          );
          let answer: unknown;
          w.on("message", (text) => {
            answer = text;
          });
          w.on("error", reject);
          w.on("exit", () => resolve(answer));
        }),
    ),
  );
  t.same(answers, Array(3).fill("Ca 3, P 2, O 8"));
});

t.test("a worker may be terminated while it generates", async (t) => {
  for (let i = 0; i < 3; i++) {
    const w = worker(`for await (const chunk of engine.generate(${JSON.stringify(long)})) parentPort.postMessage(1);`);
    await new Promise((resolve, reject) => w.once("message", resolve).once("error", reject));
    t.equal(await w.terminate(), 1);
  }
});

const script = (body: string) =>
  spawnSync(
    process.execPath,
    ["--input-type=module", "-e", `import { Engine } from ${JSON.stringify(entry)}; ${body}`],
    {
      encoding: "utf8",
      timeout: 60_000,
    },
  );

/** Sixty requests on a cache for one, eight at a time: of every kind that can be in the way when the world ends. */
const crowd = `
  import { Engine } from ${JSON.stringify(entry)};
  const engine = await Engine.load("sdar-nano", { maxConcurrent: 8, kvCache: { tokens: 1088 } });
  const runs = Array.from({ length: 60 }, (_, i) =>
    engine.generate({ prompt: "a" + i, ignoreEos: true, denoise: { strategy: "sequential" }, maxTokens: 300, key: String(i % 3), n: 1 + (i % 2), deadline: 600_000 }));
  for (const run of runs) run.result().catch(() => {});
  const unread = engine.generate({ ...${JSON.stringify(long)}, priority: 9, highWaterMark: 1 });
  await unread[Symbol.asyncIterator]().next();
  while (engine.stats().preemptions === 0) await new Promise((resolve) => setTimeout(resolve, 1));
`;

t.test("workers and processes may end amid waiting, paused and preempted requests", async (t) => {
  for (let i = 0; i < 3; i++) {
    const w = new Worker(
      `import { parentPort } from "node:worker_threads"; ${crowd} parentPort.postMessage(1); await Promise.all(runs.map((run) => run.result()));`,
      { eval: true, execArgv: ["--input-type=module"] },
    );
    await new Promise((resolve, reject) => w.once("message", resolve).once("error", reject));
    await sleep(5 * i);
    t.equal(await w.terminate(), 1);
  }
  const run = (body: string) =>
    spawnSync(process.execPath, ["--input-type=module", "-e", body], { encoding: "utf8", timeout: 60_000 });
  t.match(run(`${crowd} process.exit(3);`), { status: 3, signal: null, stderr: "" });
  const thrown = run(`${crowd} setTimeout(() => { throw new Error("the service's own"); }, 5);`);
  t.match(
    thrown,
    { status: 1, signal: null, stderr: /the service's own/ },
    "an uncaught exception ends a process as it always does",
  );
});

t.test("processes end when nothing runs any more, and not before", async (t) => {
  const idle = script(`await Engine.load("sdar-nano");`);
  t.match(idle, { status: 0, stderr: "" }, "an idle engine does not keep a process");
  const request = JSON.stringify(question);
  const busy = script(
    `const e = await Engine.load("sdar-nano"); e.generate(${request}).result().then((r) => console.log(r.text));`,
  );
  t.match(busy, { status: 0, stdout: "Ca 3, P 2, O 8\n" }, "a run does");
  const exits = script(
    `const e = await Engine.load("sdar-nano"); e.generate(${JSON.stringify(long)}); process.exit(3);`,
  );
  t.match(exits, { status: 3, signal: null }, "exit while running");
});
