// Clients by the hundred on `sdar serve`, beside the same load on the engine itself, in turns; usage below.
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { deliver, median, sum, table } from "../../dist/bench/report.js";
import { packageRoot } from "../../dist/checkpoint.js";
import { answerOf, cpuOf, end, memoryOf, startOn, startServer } from "./process.mjs";

const usage = `node bench/load/run.mjs [options]
  --clients 200       that stream at a time; a third of their requests hang up
  --seconds 60        of each load, in all rounds together
  --rounds 5          each has all loads in turn
  --slow 4            clients that have stopped reading, beside the others; 0 for none
  --warm 20           seconds of each load before, which are not counted
  --json, --out FILE  as sdar bench
`;
const { values } = parseArgs({
  options: {
    clients: { type: "string", default: "200" },
    seconds: { type: "string", default: "60" },
    rounds: { type: "string", default: "5" },
    slow: { type: "string", default: "4" },
    warm: { type: "string", default: "20" },
    json: { type: "boolean" },
    out: { type: "string" },
    help: { type: "boolean" },
  },
});
if (values.help) {
  process.stdout.write(usage);
  process.exit();
}
const [clients, all, rounds, slow, warm] = ["clients", "seconds", "rounds", "slow", "warm"].map((name) => {
  const value = Number(values[name]);
  if (!Number.isInteger(value) || value < (name === "slow" ? 0 : 1))
    throw new Error(`--${name}: give a larger whole number`);
  return value;
});
const windowSeconds = all / rounds;

// Clients have a core of their own: both sides have the same ones, whether somebody asks over HTTP or not.
const cores = availableParallelism();
if (cores < 2) throw new Error("clients need a core of their own");
const ours = `0-${cores - 2}`;
const threads = cores - 1;
const here = (name) => join(import.meta.dirname, name);
const cli = join(packageRoot, "dist", "cli", "main.js");

const settings = JSON.stringify({ threads });
const server = await startServer(ours, [cli, "serve", "--port", "0", "--threads", `${threads}`]);
const bare = await startServer(ours, [here("bare.mjs"), settings]);
const direct = startOn(ours, [here("direct.mjs"), settings]);
const asking = startOn(`${cores - 1}`, [here("clients.mjs")]);
await Promise.all([answerOf(asking), answerOf(direct)]);

/** A load, and what it took of the CPU for each token, in microseconds: of the process, of its thread of JavaScript. */
async function measured(child, seconds, load) {
  const before = cpuOf(child);
  const result = await load();
  const after = cpuOf(child);
  const perToken = (of) => (1e6 * (after[of] - before[of])) / result.tokens;
  const tokensPerSecond = result.tokens / seconds;
  return { ...result, tokensPerSecond, cpuMicroseconds: perToken("all"), mainThreadMicroseconds: perToken("main") };
}

async function overHttp({ child, port, counter }, seconds) {
  await answerOf(child, "reset");
  const result = await measured(child, seconds, async () => {
    const before = await counter("vllm:generation_tokens_total");
    const told = await answerOf(asking, { port, clients, seconds });
    return { ...told, tokens: (await counter("vllm:generation_tokens_total")) - before };
  });
  return { ...result, eventLoopDelayMs: await answerOf(child, "reset") };
}

/** Clients that read nothing, each with several completions, from when the engine holds these back. */
async function besideSlow(seconds) {
  await answerOf(asking, { port: server.port, slow });
  for (let last = -1, held = 0; held === 0 || held !== last; await sleep(1000)) {
    last = held;
    held = await server.counter("sdar:num_requests_held");
  }
  const result = await overHttp(server, seconds);
  const held = await server.counter("sdar:num_requests_held");
  await answerOf(asking, { slow: 0 });
  return { ...result, held };
}

const memory = [];
async function sampled(load, seconds) {
  const sampling = setInterval(() => memory.push(Math.round(memoryOf(server.child))), 1000);
  try {
    return await load(seconds);
  } finally {
    clearInterval(sampling);
  }
}

const loads = {
  server: (seconds) => sampled((s) => overHttp(server, s), seconds),
  ...(slow > 0 && { "server, slow readers": (seconds) => sampled(besideSlow, seconds) }),
  "bare node:http": (seconds) => overHttp(bare, seconds),
  engine: (seconds) => measured(direct, seconds, () => answerOf(direct, { clients, seconds })),
};
const names = Object.keys(loads);
const samples = Object.fromEntries(names.map((name) => [name, []]));
for (const name of names) await loads[name](warm);
memory.length = 0;
for (let round = 0; round < rounds; round++) {
  for (const name of names) {
    samples[name].push(await loads[name](windowSeconds));
    await sleep(500); // nothing of it runs any more
  }
}
for (const child of [asking, direct, bare.child, server.child]) await end(child);

/** Prompts with more than one answer: greedy ones are the same, whoever asks, beside whatever else. */
function differing() {
  const answers = new Map();
  for (const { texts } of Object.values(samples).flat()) {
    for (const [index, text] of texts) answers.set(index, (answers.get(index) ?? new Set()).add(text));
  }
  return [...answers.values()].filter(({ size }) => size > 1).length;
}

const middle = (list, of) => median(list.map(of));
const percentiles = (list, of) =>
  Object.fromEntries(["p50", "p95", "p99"].map((name) => [name, middle(list, (each) => of(each)[name])]));
const errorsOf = (list) => {
  const errors = {};
  for (const each of list) {
    for (const [what, count] of Object.entries(each.errors)) errors[what] = (errors[what] ?? 0) + count;
  }
  return errors;
};
const results = names.map((name) => {
  const list = samples[name];
  const perCpu = (other, each) => other.cpuMicroseconds / each.cpuMicroseconds;
  const ofEngine = (of) => median(list.map((each, round) => of(each, samples.engine[round])));
  return {
    name,
    requests: sum(list.map(({ requests }) => requests)),
    completed: sum(list.map(({ completed }) => completed)),
    hungUp: sum(list.map(({ hungUp }) => hungUp)),
    errors: errorsOf(list),
    tokensPerSecond: middle(list, ({ tokensPerSecond }) => tokensPerSecond),
    ofEngine: ofEngine((each, engine) => each.tokensPerSecond / engine.tokensPerSecond),
    cpuMicroseconds: middle(list, ({ cpuMicroseconds }) => cpuMicroseconds),
    mainThreadMicroseconds: middle(list, ({ mainThreadMicroseconds }) => mainThreadMicroseconds),
    ofEngineByCpu: ofEngine((each, engine) => perCpu(engine, each)),
    firstTextMs: percentiles(list, ({ firstTextMs }) => firstTextMs),
    betweenTextsMs: percentiles(list, ({ betweenTextsMs }) => betweenTextsMs),
    ...(list[0].eventLoopDelayMs && {
      eventLoopDelayMs: percentiles(list, ({ eventLoopDelayMs }) => eventLoopDelayMs),
    }),
    ...(list[0].clientSeconds && { clientCpu: middle(list, ({ clientSeconds }) => clientSeconds / windowSeconds) }),
    ...(list[0].held && { held: middle(list, ({ held }) => held) }),
  };
});
const quarter = Math.ceil(memory.length / 4);
const mean = (list) => sum(list) / list.length;
const residentMiB = {
  second: mean(memory.slice(quarter, 2 * quarter)),
  last: mean(memory.slice(-quarter)),
  all: memory,
};
const different = differing();

const fixed = (digits) => (value) => (value ?? Number.NaN).toFixed(digits);
const three = ({ p50, p95, p99 }) => [p50, p95, p99].map(fixed(0)).join(" ");
const head = [
  "",
  "requests",
  "tokens/s",
  "of engine",
  "CPU µs/token",
  "main thread",
  "of engine",
  "first ms",
  "between",
];
const rows = results.map((r) => [
  ...[r.name, r.requests, fixed(0)(r.tokensPerSecond), fixed(2)(r.ofEngine), fixed(0)(r.cpuMicroseconds)],
  ...[fixed(0)(r.mainThreadMicroseconds), fixed(2)(r.ofEngineByCpu), three(r.firstTextMs), three(r.betweenTextsMs)],
]);
const wrong = results.flatMap(({ name, errors }) => Object.entries(errors).map((each) => `${name}: ${each.join(" ")}`));
if (!values.json) {
  process.stdout.write(`${clients} clients, ${rounds} rounds of ${windowSeconds} s, ${threads} threads; medians; percentiles 50, 95, 99
${table([head, ...rows])}resident memory of the server: ${fixed(0)(residentMiB.second)} MiB in the second quarter, ${fixed(0)(residentMiB.last)} in the last
errors: ${wrong.join(", ") || "none"}; prompts with several answers: ${different}
`);
}
const described = { clients, seconds: all, rounds, slow, warm, threads };
deliver("load", { results, settings: described, residentMiB, different }, { json: values.json, out: values.out });
process.exitCode = wrong.length > 0 || different > 0 ? 1 : 0;
