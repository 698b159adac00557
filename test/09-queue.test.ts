// Admission: what waits, in which order it is taken, and what is refused.
import t from "tap";
import type { GenerateRequest, LoadOptions, Run, SdarError } from "../lib/index.js";
import { FakeClock, type FakeNative, fakeEngine } from "./fake-binding.js";

/** An engine with one place; two more requests are handed over in advance. */
async function onePlace(options: LoadOptions = {}) {
  const clock = new FakeClock();
  return { clock, ...(await fakeEngine({ clock, options: { maxConcurrent: 1, ...options } })) };
}

const short: GenerateRequest = { tokens: [1, 2], maxTokens: 3 };
const ids = (native: FakeNative) => native.requests.map(({ id }) => id);
/** The seeds of what was handed over, by which tests tell requests apart. */
const seeds = (native: FakeNative) => native.requests.map(({ seed }) => Number(seed));

/** Ends the oldest request that runs, until nothing is left. */
function finishAll(native: FakeNative, done = 0) {
  for (let at = done; at < native.requests.length; at++) {
    native.finish(native.requests[at]?.id as number, "length");
    native.wake();
  }
}

t.test("what fits is handed over at once, a little more in advance, the rest waits", async (t) => {
  const { engine, native, clock } = await onePlace();
  const runs = Array.from({ length: 6 }, () => engine.generate(short));
  t.same(ids(native), [1, 2, 3]);
  t.match(engine.stats().queue, { requests: 3, tokens: 15, rejected: 0, timedOut: 0, aborted: 0 });
  clock.pass(200);
  native.finish(1, "length");
  native.wake();
  t.same(ids(native), [1, 2, 3, 4], "one leaves, one comes");
  finishAll(native, 1);
  for (const run of runs) t.match(await run.result(), { finishReason: "length" });
  t.match(engine.stats().queue, { requests: 0, tokens: 0 });
});

t.test("a quarter of a second of work is handed over in advance, by the rate at which requests end", async (t) => {
  const { engine, native, clock } = await onePlace();
  for (let i = 0; i < 300; i++) engine.generate(short);
  let done = 0;
  for (; done < 100; done++) {
    clock.pass(10);
    native.finish(native.requests[done]?.id as number, "length");
    native.wake();
  }
  const ahead = native.requests.length - done - 1;
  t.ok(ahead >= 25 && ahead <= 26, `${ahead} at 100 a second`);
  clock.pass(10_000);
  const before = native.requests.length;
  native.wake();
  t.equal(native.requests.length, before, "while nothing ends, nothing is added");
});

t.test("higher priority goes first, then the earlier", async (t) => {
  const { engine, native } = await onePlace();
  for (const [seed, priority] of [0, 0, 0, -5, 0, 7, 7, undefined].entries()) {
    engine.generate({ ...short, seed, priority });
  }
  finishAll(native);
  t.same(seeds(native), [0, 1, 2, 5, 6, 4, 7, 3]);
  t.same(
    native.requests.map(({ priority }) => priority),
    [0, 0, 0, 7, 7, 0, 0, -5],
    "the native side knows it too",
  );
  const ranks = native.requests.map(({ rank }) => rank);
  t.same(
    ranks,
    ranks.toSorted((a, b) => a - b),
    "and has the same order",
  );
});

t.test("age makes up for priority", async (t) => {
  const { engine, native, clock } = await onePlace({ queue: { agingMs: 10 } });
  for (const seed of [0, 1, 2]) engine.generate({ ...short, seed });
  engine.generate({ ...short, seed: 3, priority: -2 });
  clock.pass(19);
  engine.generate({ ...short, seed: 4 });
  clock.pass(2);
  engine.generate({ ...short, seed: 5 });
  engine.generate({ ...short, seed: 6, priority: 1 });
  finishAll(native);
  t.same(seeds(native), [0, 1, 2, 6, 4, 3, 5], "two steps of priority are 20 ms");
});

t.test("priority does not let one key go before another", async (t) => {
  const { engine, native } = await onePlace();
  for (const seed of [0, 1, 2]) engine.generate({ ...short, seed, key: "first" });
  for (let i = 0; i < 20; i++) engine.generate({ ...short, seed: 10 + i, key: "loud", priority: 100 });
  for (let i = 0; i < 3; i++) engine.generate({ ...short, seed: 50 + i, key: "quiet", priority: -100 });
  finishAll(native);
  const quiet = seeds(native).flatMap((seed, i) => (seed >= 50 ? i : []));
  t.ok(Math.max(...quiet) < 12, `a quiet key is served at ${quiet} of ${native.requests.length}`);
});

t.test("a full queue rejects at once and says when to come back", async (t) => {
  const { engine, native, clock } = await onePlace({ queue: { maxRequests: 4 } });
  const rejected = async (run: Run) => {
    const error: SdarError = await run.result().then(
      () => t.fail("it was taken"),
      (e) => e,
    );
    t.match(error, { name: "SdarError", code: "QUEUE_FULL", message: /4 requests wait, queue\.maxRequests is 4/ });
    return error.retryAfterMs as number;
  };
  for (let i = 0; i < 7; i++) engine.generate(short);
  t.equal(await rejected(engine.generate(short)), 1000, "nothing is known yet");
  t.match(engine.stats().queue, { requests: 4, rejected: 1 });
  for (let done = 0; done < 20; done++) {
    clock.pass(100);
    native.finish(native.requests[done]?.id as number, "length");
    native.wake();
    while (engine.stats().queue.requests < 4) engine.generate(short);
  }
  const hint = await rejected(engine.generate(short));
  t.ok(hint >= 150 && hint <= 250, `${hint} ms for two of the four, at ten a second`);
  t.same(engine.stats().queue.rejected, 2);
  await t.rejects(engine.generate({ ...short, n: 2 }).result(), { code: "QUEUE_FULL" });
});

t.test("the limit on tokens counts prompts and what may be generated", async (t) => {
  const { engine, native } = await onePlace({ queue: { maxTokens: 30 } });
  const large = { tokens: [1, 2], maxTokens: 28 };
  for (let i = 0; i < 3; i++) t.ok(engine.generate(large));
  t.equal(native.requests.length, 3, "what does not wait does not count");
  engine.generate({ ...short, n: 3 });
  t.match(engine.stats().queue, { requests: 3, tokens: 11 });
  await t.rejects(engine.generate({ ...large, maxTokens: 18 }).result(), {
    code: "QUEUE_FULL",
    message: /11 tokens wait, queue\.maxTokens is 30/,
  });
  engine.generate({ ...large, maxTokens: 17 });
  t.match(engine.stats().queue, { tokens: 30 });
});

t.test("nothing waits when no request may", async (t) => {
  const { engine, native } = await onePlace({ queue: { maxRequests: 0 } });
  const runs = Array.from({ length: 4 }, () => engine.generate(short));
  await t.rejects(runs[3]?.result() as Promise<unknown>, { code: "QUEUE_FULL" });
  t.equal(native.requests.length, 3);
});

t.test("a deadline ends what waits, and goes down with what runs", async (t) => {
  const { engine, native, clock } = await onePlace();
  for (let i = 0; i < 3; i++) engine.generate({ ...short, deadline: 500 });
  t.same(
    native.requests.map(({ deadlineMs }) => deadlineMs),
    [500, 500, 500],
  );
  const soon = engine.generate({ ...short, deadline: 100 });
  const later = engine.generate({ ...short, deadline: 200 });
  engine.generate(short);
  const late = t.rejects(soon.result(), { code: "DEADLINE_EXCEEDED", message: /deadline of 100 ms/ });
  clock.pass(99);
  t.match(engine.stats().queue, { requests: 3, timedOut: 0 });
  clock.pass(1);
  await late;
  t.match(engine.stats().queue, { requests: 2, timedOut: 1 });
  clock.pass(20);
  native.finish(1, "length");
  native.finish(2, "length");
  native.wake();
  t.same(
    native.requests.slice(3).map(({ deadlineMs }) => deadlineMs),
    [80, 0],
    "what is left of it",
  );
  native.fail(5, "DEADLINE_EXCEEDED", "too late");
  native.wake();
  await t.rejects(later.result(), { code: "DEADLINE_EXCEEDED" });
  native.finish(3, "length");
  native.wake();
  t.equal(clock.timers, 0, "no timer is left");
});

t.test("a deadline that passed while the event loop was blocked", async (t) => {
  const { engine, native, clock } = await onePlace();
  for (let i = 0; i < 3; i++) engine.generate(short);
  const run = engine.generate({ ...short, deadline: 10 });
  const after = clock.after.bind(clock);
  clock.after = () => () => {};
  const next = engine.generate({ ...short, deadline: 10 });
  clock.after = after;
  clock.pass(20);
  finishAll(native);
  t.equal(native.requests.length, 3, "is not begun");
  await t.rejects(run.result(), { code: "DEADLINE_EXCEEDED" });
  await t.rejects(next.result(), { code: "DEADLINE_EXCEEDED" });
  t.match(engine.stats().queue, { requests: 0, timedOut: 2 });
});

t.test("what waits can be aborted", async (t) => {
  const { engine, native } = await onePlace();
  for (let i = 0; i < 3; i++) engine.generate(short);
  const controller = new AbortController();
  const runs = [
    engine.generate({ ...short, signal: controller.signal, deadline: 1e6 }),
    engine.generate(short),
    engine.generate({ ...short, n: 2 }),
    engine.generate({ ...short, seed: 77 }),
  ] as const;
  controller.abort();
  runs[1].abort();
  await runs[2][Symbol.asyncIterator]().return?.();
  for (const run of runs.slice(0, 3)) {
    const result = await run.result();
    t.match(result, { finishReason: "abort", text: "", usage: { promptTokens: 2, completionTokens: 0 } });
    t.same(result.tokens, []);
  }
  t.match(engine.stats().queue, { requests: 1, tokens: 5, aborted: 3 });
  finishAll(native);
  t.equal(native.requests.length, 4, "never reaches the addon");
  t.match(await runs[3].result(), { finishReason: "length", seed: 77 });
  t.same(native.aborted, []);
});

t.test("a refusal of the addon makes room for the next", async (t) => {
  const { engine, native } = await onePlace();
  const first = Array.from({ length: 3 }, () => engine.generate(short));
  const refused = Array.from({ length: 5 }, () => engine.generate({ ...short, n: 3 }));
  native.refusal = Object.assign(new Error("no"), { code: "OUT_OF_MEMORY" });
  native.finish(1, "length");
  native.wake();
  for (const run of refused) await t.rejects(run.result(), { code: "OUT_OF_MEMORY" });
  native.refusal = undefined;
  native.finish(2, "length");
  native.finish(3, "length");
  native.wake();
  for (const run of first) t.match(await run.result(), { finishReason: "length" });
  for (let i = 0; i < 4; i++) engine.generate(short);
  t.equal(native.requests.length, 3 + 3, "no place is lost");
});

t.test("dispose with drain lets what was accepted come to its end", async (t) => {
  const { engine, native } = await onePlace();
  const runs = Array.from({ length: 5 }, () => engine.generate(short));
  const drained = engine.dispose({ drain: true });
  await t.rejects(engine.generate(short).result(), { code: "DISPOSED" });
  t.equal(engine.dispose({ drain: true }), drained, "asked for again");
  t.match(engine.stats().queue, { requests: 2 });
  finishAll(native);
  t.equal(native.requests.length, 5);
  for (const run of runs) t.match(await run.result(), { finishReason: "length" });
  await drained;
  t.equal(native.closed, 1);
  t.throws(() => engine.stats(), { code: "DISPOSED" });

  const idle = await onePlace();
  await idle.engine.dispose({ drain: true });
  t.equal(idle.native.closed, 1, "nothing to wait for");
  const bad = { drian: true } as object;
  await t.rejects(idle.engine.dispose(bad), {
    code: "INVALID_OPTION",
    message: /unknown option "drian"; known are drain/,
  });
});

t.test("dispose cuts waiting short, also that of a drain", async (t) => {
  const { engine, native, clock } = await onePlace();
  const runs = Array.from({ length: 5 }, () => engine.generate({ ...short, deadline: 1000 }));
  const drained = engine.dispose({ drain: true });
  await engine.dispose();
  for (const run of runs) await t.rejects(run.result(), { code: "DISPOSED" });
  await drained;
  t.same([native.requests.length, native.closed, clock.timers], [3, 1, 0]);
});
