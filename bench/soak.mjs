// Mixed traffic for some minutes, a third of it hostile: node bench/soak.mjs [--minutes 10] [--json]
// Good tenants ask as before; hostile ones open streams and stand still, send long prompts, choose what costs most, abort
// in storms. The yardstick is the same service with good tenants in the places of the hostile ones. Fails unless every
// good tenant's 95th percentile stays within twice its share, all answers have the tokens of a quiet engine, memory is
// flat and nothing is left over.
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Engine } from "../dist/index.js";

const { values } = parseArgs({ options: { minutes: { type: "string", default: "10" }, json: { type: "boolean" } } });
const minutes = Number(values.minutes);
if (!(minutes > 0)) throw new Error("--minutes: give a number above 0");
/** Both kinds of traffic in turns, so that what else the machine does meets both. */
const rounds = Math.max(1, Math.round(minutes));
const roundMs = (minutes * 60_000) / rounds;
const tenants = { good: 4, hostile: 2 };
const clients = 3;

let state = 42;
const random = (n) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
};
const tokens = (n) => Array.from({ length: n }, () => random(550));
const problems = Array.from({ length: 60 }, (_, i) => ({
  tokens: tokens(10 + random(100)),
  maxTokens: 16 + random(80),
  ignoreEos: true,
  ...(i % 3 === 0 ? { temperature: 0.9, seed: i } : {}),
}));
const idsOf = (result) => result.tokens.map(({ id }) => id).join();

const load = () =>
  Engine.load("sdar-nano", { maxConcurrent: 16, kvCache: { tokens: 8192 }, queue: { heldMs: 5000, maxHeld: 32 } });
const expected = [];
const quiet = await load();
for (const problem of problems) expected.push(idsOf(await quiet.generate(problem).result()));
await quiet.dispose();

/** Milliseconds from a request of each good tenant to its end; answers with other tokens. */
let times = new Map();
const wrong = [];
const hostileEnds = {};

async function good(engine, key, on) {
  while (on()) {
    const i = random(problems.length);
    const began = performance.now();
    const result = await engine.generate({ ...problems[i], key, cache: { salt: key } }).result();
    times.set(key, [...(times.get(key) ?? []), performance.now() - began]);
    if (idsOf(result) !== expected[i]) wrong.push(`${key}: problem ${i}`);
    await sleep(random(20));
  }
}

const costly = { blockLength: 64, denoise: { strategy: "sequential" }, ignoreEos: true };
/** Ends with the traffic, or there would be no end. */
const ask = (engine, request) => engine.generate({ ...request, signal: stop.signal });
const attacks = {
  async standing(engine, key) {
    const readers = Array.from({ length: 8 }, () => {
      const run = ask(engine, { tokens: tokens(4), ...costly, blockLength: 8, highWaterMark: 1, key });
      const reader = run[Symbol.asyncIterator]();
      return [reader.next(), run, reader];
    });
    await Promise.allSettled(readers.map(([first]) => first));
    await sleep(300);
    // A part of them reads a little more, or leaves.
    for (const [, run, reader] of readers)
      if (random(4) === 0) await (random(2) ? reader.next().catch(() => {}) : run.abort());
  },
  longTexts: (engine, key) => ask(engine, { tokens: tokens(900), maxTokens: 40, priority: 100, key }).result(),
  costly: (engine, key) =>
    ask(engine, { ...costly, tokens: tokens(20), n: 4, temperature: 1, maxTokens: 200, key }).result(),
  lists: (engine, key) =>
    ask(engine, {
      tokens: tokens(20),
      maxTokens: 100,
      minTokens: 90,
      ignoreEos: true,
      key,
      stop: Array.from({ length: 64 }, (_, i) => "a".repeat(1000) + i),
      stopTokens: Array.from({ length: 256 }, (_, i) => i),
      logitBias: Object.fromEntries(Array.from({ length: 500 }, (_, i) => [i, 1])),
    }).result(),
  async aborts(engine, key) {
    const runs = Array.from({ length: 40 }, () => ask(engine, { tokens: tokens(60), ...costly, key }));
    await sleep(random(20));
    for (const run of runs) run.abort();
    await Promise.all(runs.map((run) => run.result()));
  },
};

async function hostile(engine, key, client, on) {
  const kinds = Object.keys(attacks);
  for (let i = client; on(); i++) {
    const kind = kinds[i % kinds.length];
    const end = await attacks[kind](engine, key).then(
      () => "ended",
      (error) => error.code,
    );
    hostileEnds[`${kind} ${end}`] = (hostileEnds[`${kind} ${end}`] ?? 0) + 1;
  }
}

let stop = new AbortController();
const rss = [];
async function traffic(engine, ms, others, into) {
  times = into;
  stop = new AbortController();
  setTimeout(() => stop.abort(), ms);
  const until = performance.now() + ms;
  const on = () => performance.now() < until;
  const all = [];
  for (let client = 0; client < clients; client++) {
    for (let i = 0; i < tenants.good; i++) all.push(good(engine, `good ${i}`, on));
    for (let i = 0; i < tenants.hostile; i++) all.push(others(engine, `other ${i}`, client, on));
  }
  const sampling = setInterval(() => rss.push(process.memoryUsage.rss() / 2 ** 20), 1000);
  await Promise.all(all);
  clearInterval(sampling);
}
const p95 = (list) => list.toSorted((a, b) => a - b)[Math.ceil(0.95 * list.length) - 1];
const summary = (all) =>
  Object.fromEntries(
    [...all]
      .filter(([key]) => key.startsWith("good"))
      .map(([key, list]) => [key, { requests: list.length, p95Ms: p95(list) }]),
  );

const engine = await load();
const [alike, mixed] = [new Map(), new Map()];
for (let round = 0; round < rounds; round++) {
  await traffic(engine, roundMs / 3, (engine, key, _, on) => good(engine, key, on), alike);
  await traffic(engine, roundMs, hostile, mixed);
}
const [share, beside] = [summary(alike), summary(mixed)];
const quarter = Math.ceil(rss.length / 4);
const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
const memory = { secondQuarterMiB: mean(rss.slice(quarter, 2 * quarter)), lastQuarterMiB: mean(rss.slice(-quarter)) };
// Those who stand still are ended by queue.heldMs.
let left = engine.stats();
for (
  let i = 0;
  i < 80 && left.running + left.waiting + left.paused + left.queue.requests + left.pages.active > 0;
  i++
) {
  await sleep(100);
  left = engine.stats();
}
const leftOver = left.running + left.waiting + left.paused + left.queue.requests + left.pages.active;
await engine.dispose();

const ratios = Object.entries(beside).map(([key, { p95Ms }]) => p95Ms / share[key].p95Ms);
const report = {
  minutes,
  share,
  beside,
  worstRatio: Math.max(...ratios),
  wrong: wrong.length,
  memory,
  leftOver,
  hostileEnds,
};
console.log(values.json ? JSON.stringify(report) : report);
const flat = memory.lastQuarterMiB < 1.15 * memory.secondQuarterMiB + 8;
const ok = ratios.length === tenants.good && report.worstRatio <= 2 && wrong.length === 0 && flat && leftOver === 0;
console.log(ok ? "ok" : "FAILED");
process.exitCode = ok ? 0 : 1;
