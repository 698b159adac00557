// Readers that stand still cost nobody but themselves: their places go to others, they are bounded, nobody waits for them.
import { getEventListeners } from "node:events";
import t from "tap";
import {
  type Chunk,
  Engine,
  type GenerateOptions,
  type GenerateRequest,
  type LoadOptions,
  type Token,
} from "../lib/index.js";
import { patienceMs } from "../lib/run.js";
import { eventually } from "./eventually.js";
import { FakeClock, type FakeNative, fakeEngine } from "./fake-binding.js";

const request = { tokens: [1], maxTokens: 40, highWaterMark: 2 };

/** A service with two places and two requests submitted in advance. */
async function service(queue: LoadOptions["queue"] = {}) {
  const clock = new FakeClock();
  const made = await fakeEngine({ clock, options: { maxConcurrent: 2, queue } });
  const tell = (id: number, count: number) => {
    made.native.tokens(id, Array(count).fill(65));
    made.native.wake();
  };
  /** A run with three unread tokens, by the id it gets. */
  const standing = (id: number, more: GenerateOptions = {}) => {
    const run = made.engine.generate({ ...request, ...more });
    const reader = run[Symbol.asyncIterator]();
    for (let i = 0; i < 3; i++) tell(id, 1);
    return { run, reader };
  };
  return { ...made, clock, tell, standing };
}

const ids = (native: FakeNative) => native.requests.map(({ id }) => id);

t.test("however many stand still, the next one is started", async (t) => {
  const { engine, native, standing } = await service();
  for (let id = 1; id <= 40; id++) standing(id);
  t.equal(native.requests.length, 40);
  engine.generate(request);
  t.equal(native.requests.length, 41);
  t.equal(engine.stats().queue.requests, 0);
});

t.test("one that is read again takes the next place, before others of its key", async (t) => {
  const { engine, native, standing } = await service();
  const { reader } = standing(1);
  for (let id = 2; id <= 7; id++) engine.generate(request);
  t.same(ids(native), [1, 2, 3, 4, 5], "two places, two in advance, and the one that stands still");
  for (let i = 0; i < 2; i++) await reader.next();
  t.same(native.held, [["pause", 1]], "there is no place yet");
  native.finish(2, "length");
  native.wake();
  t.same(native.held, [
    ["pause", 1],
    ["resume", 1],
  ]);
  t.same(ids(native), [1, 2, 3, 4, 5], "before 6 and 7");
  native.finish(3, "length");
  native.wake();
  t.same(ids(native), [1, 2, 3, 4, 5, 6]);
});

t.test("one that ends while it is held, or waits to go on, gives back no place twice", async (t) => {
  const { engine, native, standing } = await service();
  const [first, second] = [standing(1), standing(2)];
  for (let id = 3; id <= 9; id++) engine.generate(request);
  t.same(ids(native), [1, 2, 3, 4, 5, 6]);
  for (let i = 0; i < 2; i++) await second.reader.next();
  first.run.abort();
  second.run.abort();
  t.match(await first.run.result(), { finishReason: "abort", tokens: { length: 3 } });
  t.match(await second.run.result(), { finishReason: "abort", tokens: { length: 3 } });
  t.same(ids(native), [1, 2, 3, 4, 5, 6], "all places are still taken");
  native.finish(3, "length");
  native.wake();
  t.same(ids(native), [1, 2, 3, 4, 5, 6, 7]);
});

t.test("beyond maxHeld of a key the one that stood still longest fails", async (t) => {
  const { clock, native, standing } = await service({ maxHeld: 3 });
  const runs = [];
  for (let id = 1; id <= 3; id++) {
    runs.push(standing(id));
    clock.pass(10);
  }
  await runs[0]?.reader.next();
  standing(4, { key: "another" });
  t.same(native.aborted, []);
  standing(5);
  t.same(native.aborted, [2], "the first has been read since");
  await t.rejects(runs[1]?.run.result() as Promise<unknown>, { code: "READER_STALLED", message: /queue\.maxHeld/ });
  const { reader } = runs[1] as (typeof runs)[0];
  for (let i = 0; i < 3; i++)
    t.equal((await reader.next()).value?.tokens.length, 1, "what was there can still be read");
  await t.rejects(reader.next(), { code: "READER_STALLED" });
  standing(6, { n: 4, key: "many" });
  t.same(native.aborted, [2, 6, 7, 8, 9], "each completion counts");
});

t.test("a reader that reads nothing for heldMs ends its run", async (t) => {
  const { native, clock, standing } = await service({ heldMs: 5000 });
  const read = standing(1);
  const other = standing(2);
  clock.pass(4999);
  await read.reader.next();
  clock.pass(1);
  await t.rejects(other.run.result(), { code: "READER_STALLED", message: /5000 ms \(queue\.heldMs\)/ });
  t.same(native.aborted, [2]);
});

t.test("draining does not wait for a reader that stands still, but for one that reads", async (t) => {
  const { engine, native, clock, tell, standing } = await service();
  const still = standing(1);
  const slow = standing(2);
  const plain = engine.generate(request);
  let drained = false;
  const disposed = engine.dispose({ drain: true }).then(() => {
    drained = true;
  });
  native.finish(3, "length");
  native.wake();
  await plain.result();
  for (let i = 0; i < 3; i++) {
    clock.pass(patienceMs - 1);
    await slow.reader.next();
    tell(2, 3);
  }
  t.notOk(drained);
  native.finish(2, "length");
  native.wake();
  clock.pass(patienceMs);
  await disposed;
  t.match(await slow.run.result(), { finishReason: "length" });
  await t.rejects(still.run.result(), { code: "DISPOSED" });
});

t.test("one listener serves all requests of a signal", async (t) => {
  const { engine, native } = await service();
  const controller = new AbortController();
  const { signal } = controller;
  const runs = Array.from({ length: 100 }, () => engine.generate({ ...request, signal }));
  t.equal(getEventListeners(signal, "abort").length, 1);
  native.finish(1, "length");
  native.wake();
  t.equal(getEventListeners(signal, "abort").length, 1);
  controller.abort();
  const ends = await Promise.all(runs.map(async (run) => (await run.result()).finishReason));
  t.same(new Set(ends), new Set(["length", "abort"]));
  t.equal(getEventListeners(signal, "abort").length, 0);
});

t.test("an abort and a deadline do not wait for a step that takes long", async (t) => {
  const { engine, native, clock, tell } = await service();
  native.endsOnAbort = false;
  const run = engine.generate({ ...request, highWaterMark: 100 });
  tell(1, 3);
  run.abort();
  clock.pass(100);
  t.match(await run.result(), {
    finishReason: "abort",
    tokens: { length: 3 },
    usage: { completionTokens: 3, forwards: 2 },
  });
  const late = engine.generate({ ...request, deadline: 500 });
  clock.pass(600);
  await t.rejects(late.result(), { code: "DEADLINE_EXCEEDED" });
  t.equal(engine.stats().queue.requests, 0);
});

t.test("on a real engine: tokens are those of an undisturbed run, and others are served meanwhile", async (t) => {
  const engine = await Engine.load("sdar-nano", { maxConcurrent: 4, kvCache: { tokens: 1024 } });
  t.teardown(() => engine.dispose());
  const long = (i: number): GenerateRequest => ({ tokens: [i, 7, 9], maxTokens: 90, ignoreEos: true });
  const expected: Token[][] = [];
  for (let i = 0; i < 12; i++) expected.push((await engine.generate(long(i)).result()).tokens);
  const readers = Array.from({ length: 12 }, (_, i) => {
    const run = engine.generate({ ...long(i), highWaterMark: 1, key: "still" });
    return run[Symbol.asyncIterator]() as AsyncIterableIterator<Chunk, void>;
  });
  await eventually(t, () => engine.stats(), { paused: 12, running: 0 });
  const others = Array.from({ length: 12 }, (_, i) => engine.generate(long(i)).result());
  for (const [i, other] of others.entries()) t.same((await other).tokens, expected[i]);
  await Promise.all(
    readers.map(async (reader, i) => {
      const tokens = [];
      for await (const chunk of reader) tokens.push(...chunk.tokens);
      t.same(tokens, expected[i]);
    }),
  );
  await eventually(t, () => engine.stats(), { running: 0, paused: 0, waiting: 0, pages: { active: 0 } });
});
