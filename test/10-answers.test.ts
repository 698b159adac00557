// Many answers of one prompt: n requests of one group for the addon, one run for the caller.
import t from "tap";
import type { Chunk, GenerateRequest } from "../lib/index.js";
import { fakeEngine } from "./fake-binding.js";

const request: GenerateRequest = { tokens: [1, 2, 3], maxTokens: 8, temperature: 1, seed: 7, n: 3 };

t.test("the addon gets a group in one turn, answer 0 first", async (t) => {
  const { engine, native } = await fakeEngine();
  engine.generate({ ...request, n: 1 });
  engine.generate(request);
  t.match(native.requests, [
    { id: 1, group: 0, answer: 0 },
    { id: 2, group: 2, answer: 0, seed: 7n },
    { id: 3, group: 2, answer: 1, seed: 7n },
    { id: 4, group: 2, answer: 2, seed: 7n },
  ]);
});

t.test("chunks tell their answer, the result has all of them", async (t) => {
  const { engine, native } = await fakeEngine();
  const run = engine.generate(request);
  const chunks: Chunk[] = [];
  const reading = (async () => {
    for await (const chunk of run) chunks.push(chunk);
  })();
  native.promptTokens = 3;
  native.tokens(2, [66]);
  native.tokens(1, [65]);
  native.wake();
  native.finish(2, "end");
  native.tokens(3, [67, 68]);
  native.finish(3, "length");
  native.wake();
  native.finish(1, "stop");
  native.wake();
  await reading;
  const result = await run.result();
  t.same(
    chunks.map(({ answer, tokens }) => [answer, tokens.map(({ id }) => id)]),
    [
      [1, [66]],
      [0, [65]],
      [2, [67, 68]],
    ],
  );
  t.match(result, { finishReason: "stop", seed: 7, tokens: [{ id: 65 }] });
  t.match(result.answers, [
    { finishReason: "stop", tokens: [{ id: 65 }] },
    { finishReason: "end", tokens: [{ id: 66 }] },
    { finishReason: "length", tokens: [{ id: 67 }, { id: 68 }] },
  ]);
  // The fake addon says 4 completion tokens and 2 forwards of each.
  t.match(result.usage, { promptTokens: 3, completionTokens: 12, forwards: 6, tokensPerForward: 2 });
});

t.test("one answer has no list", async (t) => {
  const { engine, native } = await fakeEngine();
  const run = engine.generate({ ...request, n: 1 });
  native.finish(1, "length");
  native.wake();
  t.notHas(await run.result(), { answers: [] });
});

t.test("an abort ends all that still run, a failure of one fails the run", async (t) => {
  const { engine, native } = await fakeEngine();
  const aborted = engine.generate(request);
  native.finish(2, "end");
  native.wake();
  aborted.abort();
  const { answers } = await aborted.result();
  t.same(
    answers?.map(({ finishReason }) => finishReason),
    ["abort", "end", "abort"],
  );
  t.same(native.aborted, [1, 3]);

  const failed = engine.generate(request);
  native.endsOnAbort = false;
  native.fail(5, "NUMERIC_ERROR", "a NaN");
  native.wake();
  await t.rejects(failed.result(), { code: "NUMERIC_ERROR" });
  t.same(native.aborted, [1, 3, 4, 6], "its siblings end");
  native.finish(4, "abort");
  native.finish(6, "abort");
  native.wake();

  const left = engine.generate(request);
  native.endsOnAbort = true;
  native.tokens(8, [65]);
  native.wake();
  for await (const _ of left) break;
  t.same(native.aborted.slice(4), [7, 8, 9], "leaving the loop ends all");
});

t.test("answers count one by one against places and the queue", async (t) => {
  const { engine, native } = await fakeEngine({ options: { maxConcurrent: 1, queue: { maxRequests: 5 } } });
  engine.generate(request);
  t.equal(native.requests.length, 3, "what is handed over at once does not wait");
  engine.generate(request);
  t.match(engine.stats().queue, { requests: 3, tokens: 3 + 3 * 8 });
  await t.rejects(engine.generate(request).result(), { code: "QUEUE_FULL" });
  for (const id of [1, 2]) native.finish(id, "end");
  native.wake();
  t.equal(native.requests.length, 6, "a place is enough");
});

t.test("how many there may be", async (t) => {
  const { engine } = await fakeEngine();
  for (const n of [0, 65, 1.5, "2", Number.NaN] as number[])
    await t.rejects(engine.generate({ ...request, n }).result(), { code: "INVALID_OPTION", option: "n" });
});
