// A reader that lags behind holds its run back, and nothing else does.
import t from "tap";
import type { GenerateRequest } from "../lib/index.js";
import { patienceMs } from "../lib/run.js";
import { FakeClock, type FakeNative, fakeEngine } from "./fake-binding.js";

const request: GenerateRequest = { tokens: [1], maxTokens: 40, highWaterMark: 8 };

function give(native: FakeNative, id: number, chunks: number, tokens = 2) {
  for (let i = 0; i < chunks; i++) {
    native.tokens(id, Array(tokens).fill(65));
    native.wake();
  }
}

t.test("unread tokens above the mark hold the run, half of it lets it go on", async (t) => {
  const { engine, native } = await fakeEngine();
  const run = engine.generate(request);
  const reader = run[Symbol.asyncIterator]();
  give(native, 1, 4);
  t.same(native.held, [], "8 tokens wait");
  give(native, 1, 1);
  t.same(native.held, [["pause", 1]]);
  give(native, 1, 2);
  t.same(native.held, [["pause", 1]], "once");
  for (let i = 0; i < 4; i++) await reader.next();
  t.equal(native.held.length, 1, "6 tokens wait");
  await reader.next();
  t.same(native.held.slice(1), [["resume", 1]], "4 tokens wait");
  native.finish(1, "length");
  native.wake();
  let rest = 0;
  while (!(await reader.next()).done) rest++;
  t.equal(rest, 2, "nothing is lost");
  t.match(await run.result(), { finishReason: "length", tokens: { length: 14 } });
  t.equal(native.held.length, 2);
});

t.test("drafts count too", async (t) => {
  const { engine, native } = await fakeEngine();
  engine.generate({ ...request, drafts: true })[Symbol.asyncIterator]();
  const slots = Array.from({ length: 8 }, (): [number, number] => [-1, -1]);
  native.draft(1, 0, 0, 0, slots);
  native.wake();
  t.same(native.held, []);
  native.draft(1, 0, 1, 0, slots);
  native.wake();
  t.same(native.held, [["pause", 1]]);
});

t.test("without an iterator nothing is held; one that comes late holds at once", async (t) => {
  const { engine, native } = await fakeEngine();
  const run = engine.generate(request);
  give(native, 1, 20);
  t.same(native.held, []);
  run[Symbol.asyncIterator]();
  t.same(native.held, [["pause", 1]]);
});

t.test("who waits for the result is not kept by a reader that reads nothing", async (t) => {
  const clock = new FakeClock();
  const { engine, native } = await fakeEngine({ clock });
  const run = engine.generate(request);
  const reader = run[Symbol.asyncIterator]();
  await Promise.all([reader.next(), give(native, 1, 6)]);
  t.same(native.held, [["pause", 1]]);
  const result = run.result();
  clock.pass(patienceMs - 1);
  t.equal(native.held.length, 1);
  clock.pass(2);
  t.same(native.held.slice(1), [["resume", 1]]);
  give(native, 1, 10);
  native.finish(1, "length");
  native.wake();
  t.match(await result, { tokens: { length: 32 } });
  t.equal(clock.timers, 0);
});

t.test("a held run can be aborted, left, and times out", async (t) => {
  const clock = new FakeClock();
  const { engine, native } = await fakeEngine({ clock });
  for (const end of ["abort", "leave", "deadline"]) {
    const id = native.requests.length + 1;
    const run = engine.generate({ ...request, deadline: 1000 });
    const reader = run[Symbol.asyncIterator]();
    give(native, id, 5);
    t.same(native.held.at(-1), ["pause", id]);
    if (end === "abort") run.abort();
    else if (end === "leave") await reader.return?.();
    else {
      native.fail(id, "DEADLINE_EXCEEDED", "too late");
      native.wake();
      await t.rejects(run.result(), { code: "DEADLINE_EXCEEDED" });
      continue;
    }
    t.match(await run.result(), { finishReason: "abort", tokens: { length: 10 } });
  }
});

t.test("all answers are held together", async (t) => {
  const { engine, native } = await fakeEngine();
  engine.generate({ ...request, n: 2 })[Symbol.asyncIterator]();
  give(native, 1, 5);
  t.same(native.held, [
    ["pause", 1],
    ["pause", 2],
  ]);
});
