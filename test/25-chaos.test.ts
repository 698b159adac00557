// 10,000 requests of every kind on a pool of pages far too small for them: each ends exactly once, finished ones with the
// tokens of an undisturbed run, and afterwards every page is accounted for.
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { Engine, type GenerateRequest, type GenerateResult, SdarError } from "../lib/index.js";
import { strategies } from "../lib/quality.js";
import { eventually } from "./eventually.js";

let state = 20251125;
/** An integer below n, the same sequence every time. */
const random = (n: number) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
};
const chance = (percent: number) => random(100) < percent;
const pick = <T>(...options: T[]) => options[random(options.length)] as T;

/** Requests that differ in all that may differ. */
const problems = Array.from({ length: 300 }, (_, i) => ({
  tokens: Array.from({ length: 1 + random(i % 10 === 0 ? 220 : 50) }, () => random(550)),
  maxTokens: 1 + random(180),
  blockLength: pick(8, 8, 8, 4, 16, 5, 1),
  denoise: { strategy: strategies[i % strategies.length], threshold: 0.6 },
  temperature: i % 3 === 0 ? 0.9 : 0,
  seed: i,
  ignoreEos: i % 2 === 0,
}));

const outcome = ({ tokens, finishReason }: GenerateResult) => JSON.stringify([tokens, finishReason]);

async function undisturbed(): Promise<string[]> {
  await using engine = await Engine.load("sdar-nano", { weights: "int8", prefixCache: false });
  return await Promise.all(problems.map(async (problem) => outcome(await engine.generate(problem).result())));
}

const total = 10_000;
/** Requests at a time, most of them in the queue: bursts go beyond its limit. */
const [calm, burst] = [60, 220];

const skip = process.env.SDAR_TEST_QUICK ? "test/native/serving_test.cc does the same in small" : false;
t.test(`${total} requests on seven pages`, { skip }, async (t) => {
  const expected = await undisturbed();
  await using engine = await Engine.load("sdar-nano", {
    weights: "int8",
    kvCache: { tokens: 7 * 64 },
    maxConcurrent: 12,
    queue: { maxRequests: 100 },
  });
  const ends = { finished: 0, aborted: 0, rejected: 0, timedOut: 0 };
  const wrong: string[] = [];
  let running = 0;
  let slowReaders = 0;
  let dropped = 0;

  const one = async (problem: number) => {
    const controller = new AbortController();
    const fate = random(100);
    const request: GenerateRequest = {
      ...(problems[problem] as (typeof problems)[0]),
      priority: random(5) - 2,
      key: pick("a", "b", "c", undefined),
      cache: { salt: pick("", "", "", "salt"), pin: chance(5) },
      signal: controller.signal,
      highWaterMark: 8,
      ...(fate < 9 ? { deadline: 1 + random(30) } : {}),
    };
    const run = engine.generate(request);
    let ended = 0;
    const result = run.result().finally(() => ended++);
    result.catch(() => {});
    try {
      if (fate >= 9 && fate < 18) {
        await sleep(random(20));
        controller.abort();
      } else if (fate >= 18 && fate < 24) {
        let left = random(3);
        for await (const _ of run) if (left-- <= 0) break;
        dropped++;
      } else if (fate >= 24 && fate < 36) {
        for await (const { tokens } of run) if (tokens.length > 0 && chance(15)) await sleep(random(8));
        slowReaders++;
      }
      const done = await result;
      if (done.finishReason === "abort") ends.aborted++;
      else {
        ends.finished++;
        if (outcome(done) !== expected[problem]) wrong.push(`${problem}: ${outcome(done)}`);
      }
    } catch (error) {
      await result.catch(() => {});
      if (!(error instanceof SdarError)) throw error;
      if (error.code === "QUEUE_FULL") ends.rejected++;
      else if (error.code === "DEADLINE_EXCEEDED" && fate < 9) ends.timedOut++;
      else wrong.push(`${problem}: ${error.code} ${error.message}`);
    }
    if (ended !== 1) wrong.push(`${problem} ended ${ended} times`);
    running--;
  };

  const all: Promise<void>[] = [];
  let lastBurst = 0;
  while (all.length < total) {
    const bursts = all.length >= lastBurst + 800;
    if (bursts) lastBurst = all.length;
    const wanted = bursts ? burst : calm;
    for (; running < wanted && all.length < total; running++) all.push(one(random(problems.length)));
    await sleep(1);
  }
  await Promise.all(all);

  const stats = engine.stats();
  const { preemptions, cachedTokens, recomputedTokens, evictions } = stats;
  t.comment(JSON.stringify({ ...ends, dropped, slowReaders, preemptions, cachedTokens, recomputedTokens, evictions }));
  t.same(wrong.slice(0, 5), [], "every request ended as it should");
  t.equal(ends.finished + ends.aborted + ends.rejected + ends.timedOut, total);
  t.ok(preemptions >= 1000, `${preemptions} preemptions`);
  for (const [name, count] of Object.entries(ends)) t.ok(count >= 500, `${count} ${name}`);
  t.ok(slowReaders >= 500 && dropped >= 200);
  await eventually(t, () => engine.stats(), { running: 0, waiting: 0, paused: 0, pages: { active: 0 } });
  const { pages, queue } = engine.stats();
  t.equal(pages.free + pages.cached, pages.total, "every page is free or cached");
  t.match(queue, { requests: 0, tokens: 0 });
});
