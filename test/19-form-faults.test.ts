// What forms must not do to others: stall the step loop, end the process, fail an answer that is whole.

import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import t from "tap";
import { packageRoot } from "../lib/checkpoint.js";
import { Engine, type Format } from "../lib/index.js";
import { Turns } from "../lib/turns.js";

const entry = pathToFileURL(`${packageRoot}dist/index.js`).href;

t.test("with one engine", async (t) => {
  const engine = await Engine.load("sdar-nano", { kvCache: { tokens: 4096 } });
  t.teardown(() => engine.dispose());
  const answer = (format: Format, rest = {}) =>
    engine.generate({ prompt: "1 + 1 =", maxTokens: 64, format, ...rest }).result();

  await t.test("an ambiguous form ends, also one that is so behind its beginning", async (t) => {
    t.match((await answer({ type: "regex", pattern: "[ab]*a[ab]{40}" })).text, /^[ab]*a[ab]{40}$/);
    const [y = 0] = await engine.tokenize("y");
    const behind = { type: "regex", pattern: "x|y[ab]*a[ab]{40}" } as const;
    const { text } = await answer(behind, { logitBias: { [y]: 100 }, blockLength: 1 });
    t.match(text, /^y[ab]*a[ab]{40}$/);
  });

  await t.test("a text that the form alone decides ends with every strategy", async (t) => {
    for (const format of [
      { type: "regex", pattern: "" },
      { type: "choice", choices: ["22"] },
    ] as const)
      for (const strategy of ["self_verified", "low_confidence_dynamic", "entropy_bounded"] as const)
        for (const blockLength of [4, 64]) {
          const denoise = { strategy, steps: 1 };
          const { finishReason } = await answer(format, { prompt: "a", denoise, blockLength, deadline: 20_000 });
          t.equal(finishReason, "end");
        }
  });

  await t.test("a choice that the context has no room for is impossible", async (t) => {
    const { value, choices } = await answer({ type: "choice", choices: ["b".repeat(5000), "yes", "no"] });
    t.match(value, /^(yes|no)$/);
    t.match(choices?.[0], { probability: 0, logprob: Number.NEGATIVE_INFINITY });
    const sum = choices?.reduce((so, { probability }) => so + probability, 0) ?? 0;
    t.ok(Math.abs(sum - 1) < 1e-9);
  });

  await t.test("half of a surrogate pair is named", async (t) => {
    const forms: Format[] = [
      { type: "choice", choices: ["yes", "\ud800"] },
      { type: "regex", pattern: "a\udfff" },
      { type: "json_schema", schema: { const: "\ud83d" } },
    ];
    for (const format of forms)
      await t.rejects(answer(format), { code: "INVALID_OPTION", option: "format", message: /surrogate pair/ });
    t.equal((await answer({ type: "choice", choices: ["\\ud800"] })).value, "\\ud800");
    t.equal((await answer({ type: "choice", choices: ["😀"] })).value, "😀");
  });
});

t.test("keys take turns in what is done one at a time", async (t) => {
  const turns = new Turns();
  const order: string[] = [];
  const work = (name: string) => async () => {
    order.push(name);
    await new Promise(setImmediate);
    if (name === "a2") throw new Error(name);
    return name;
  };
  const names = ["a1", "a2", "a3", "b1", "c1", "b2"];
  const all = names.map((name) => turns.run(name.charAt(0), work(name)).catch((error: Error) => error.message));
  t.equal(turns.count, 6);
  t.same(await Promise.all(all), names);
  t.same(order, ["a1", "a2", "b1", "c1", "a3", "b2"], "a1 had begun before the others came");
  t.equal(turns.count, 0);
  t.equal(await turns.run("a", work("a4")), "a4");
});

t.test("a score that an end of the engine cuts off leaves no rejection unhandled", async (t) => {
  const unhandled: unknown[] = [];
  const listener = (reason: unknown) => unhandled.push(reason);
  process.on("unhandledRejection", listener);
  t.teardown(() => process.off("unhandledRejection", listener));
  const engine = await Engine.load("sdar-nano", { kvCache: { tokens: 2048 } });
  const score = t.rejects(engine.score({ prompt: "1 ".repeat(300), completion: "2" }), { code: "DISPOSED" });
  await engine.dispose();
  await score;
  await new Promise(setImmediate);
  t.same(unhandled, []);
});

t.test("a worker may be terminated while forms are compiled", async (t) => {
  const source = `
    const { Engine } = await import("${entry}");
    const { parentPort } = await import("node:worker_threads");
    const engine = await Engine.load("sdar-nano", { threads: 1, kvCache: { tokens: 1024 } });
    let n = 0;
    const ask = async () => {
      for (;;) {
        const format = { type: "regex", pattern: "[a-z]{0,2}" + n++ };
        await engine.generate({ prompt: "1", maxTokens: 6, format }).result();
      }
    };
    for (let i = 0; i < 20; i++) ask();
    parentPort.postMessage("busy");
    // Most of the time JavaScript runs, so that it is in the middle of something when it is ended.
    for (;;) {
      for (const begin = performance.now(); performance.now() - begin < 3; );
      await new Promise((resolve) => setTimeout(resolve, 0));
    }`;
  for (let i = 0; i < 5; i++) {
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), { execArgv: [] });
    await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    await new Promise((resolve) => setTimeout(resolve, 30 + i));
    t.equal(await worker.terminate(), 1);
  }
});
