// Times sdar-engine against llama.cpp on the same shape, threads, context and bit-width, in turns within one run.
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { buildPeer, root, writeModel } from "./build.mjs";
import { commit, describeMachine, machineName } from "./machine.mjs";
import { shapes } from "./shapes.mjs";
import { Side } from "./side.mjs";

const usage = `node bench/peers/run.mjs [options]
  --weights int8,int4,bf16     against Q8_0, Q4_0, BF16
  --tokens 1,4,8,16,32,64,512  tokens in a forward
  --shape sdar-1.7b            ${Object.keys(shapes).join(", ")}
  --layers 8                   layers of the shape to keep
  --context 256                tokens before the forward
  --threads 2
  --seconds 10                 time for each size, at least 5 rounds
  --out FILE                   default bench/results/peers-<machine>.json
  --control                    llama.cpp against itself: what the method alone makes of equal sides
`;

const peerFormats = { int8: "Q8_0", int4: "Q4_0", bf16: "BF16" };
const cli = join(root, "dist/cli/main.js");
const minRounds = 5;
const maxRounds = 101;

function parseOptions() {
  const { values } = parseArgs({
    options: {
      weights: { type: "string", default: "int8,int4,bf16" },
      tokens: { type: "string", default: "1,4,8,16,32,64,512" },
      shape: { type: "string", default: "sdar-1.7b" },
      layers: { type: "string", default: "8" },
      context: { type: "string", default: "256" },
      threads: { type: "string", default: "2" },
      seconds: { type: "string", default: "10" },
      out: { type: "string" },
      control: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    process.exit(0);
  }
  const positive = (name, text) => {
    const number = Number(text);
    if (!Number.isInteger(number) || number < 1) throw new Error(`--${name} ${text}: must be a positive whole number`);
    return number;
  };
  const weights = values.weights.split(",");
  const unknown = weights.find((format) => !(format in peerFormats));
  if (unknown !== undefined) throw new Error(`--weights ${unknown}: must be ${Object.keys(peerFormats).join(", ")}`);
  if (!(values.shape in shapes)) throw new Error(`--shape ${values.shape}: must be ${Object.keys(shapes).join(", ")}`);
  return {
    weights,
    tokens: values.tokens.split(",").map((text) => positive("tokens", text)),
    shape: values.shape,
    layers: positive("layers", values.layers),
    context: positive("context", values.context),
    threads: positive("threads", values.threads),
    seconds: positive("seconds", values.seconds),
    control: values.control,
    out: values.out,
  };
}

function summarize(samples) {
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, min: sorted[0], samples };
}

/** Alternates A B A B …; the first round of a size warms both up and is not counted. */
async function interleave(peer, ours, tokens, seconds) {
  const times = { peer: [], ours: [] };
  await peer.time(tokens);
  await ours.time(tokens);
  const start = performance.now();
  for (let round = 0; round < maxRounds; round++) {
    if (round >= minRounds && performance.now() - start > seconds * 1000) break;
    times.peer.push(await peer.time(tokens));
    times.ours.push(await ours.time(tokens));
  }
  return { peer: summarize(times.peer), ours: summarize(times.ours) };
}

function startPeer(name, built, model, options) {
  const largest = Math.max(...options.tokens);
  return Side.start(name, built.bench, [built.libraries, model, options.context, options.threads, largest].map(String));
}

function startOurs(weights, options) {
  const { shape, layers, context, threads, tokens } = options;
  const settings = Object.entries({ shape, layers, weights, context, threads, tokens }).flatMap(([name, value]) => [
    `--${name}`,
    `${value}`,
  ]);
  return Side.start("sdar-engine", process.execPath, [cli, "bench", "forward", "--serve", ...settings]);
}

/** All sizes of one format; prints a line of the table as each is done. */
async function compare(built, weights, options) {
  const format = peerFormats[weights];
  const model = writeModel(built, options.shape, { ...shapes[options.shape], layers: options.layers }, format);
  const peer = await startPeer("llama.cpp", built, model, options);
  const ours = await (options.control
    ? startPeer("llama.cpp again", built, model, options)
    : startOurs(weights, options));
  const sizes = [peer.info.parameters, ours.info.parameters];
  if (sizes[1] && Math.abs(sizes[0] / sizes[1] - 1) > 0.01)
    throw new Error(`the models differ: ${sizes.join(" and ")} parameters`);
  console.log(`\n${options.control ? format : weights} against ${format}, ms: median (min)`);
  console.log("     M           llama.cpp                ours   ratio  of minima  rounds");
  const results = [];
  for (const tokens of options.tokens) {
    const times = await interleave(peer, ours, tokens, options.seconds);
    const ratio = times.peer.median / times.ours.median;
    const ratioOfMinima = times.peer.min / times.ours.min;
    results.push({
      weights,
      peerWeights: format,
      tokens,
      ms: times.ours.median,
      peerMs: times.peer.median,
      ratio,
      ratioOfMinima,
      ...times,
    });
    const cell = ({ median, min }) => `${median.toFixed(2)} (${min.toFixed(2)})`.padStart(20);
    const numbers = [
      ratio.toFixed(2).padStart(8),
      ratioOfMinima.toFixed(2).padStart(11),
      `${times.ours.samples.length}`.padStart(8),
    ];
    console.log(`${tokens}`.padStart(6) + cell(times.peer) + cell(times.ours) + numbers.join(""));
  }
  const idle = { peer: peer.idleLoad(), ours: ours.idleLoad() };
  const percent = (share) => `${(share * 100).toFixed(1)} %`;
  console.log(`CPU used while the other side ran: llama.cpp ${percent(idle.peer)}, ours ${percent(idle.ours)}`);
  await Promise.all([peer.stop(), ours.stop()]);
  return { results, sides: { weights, peer: peer.info, ours: ours.info, idle } };
}

async function main() {
  const options = parseOptions();
  if (!options.control && !existsSync(cli)) throw new Error(`${cli} is missing: run npm run build first`);
  const built = buildPeer();
  const machine = describeMachine();
  console.log(`${machine.cpu}, ${machine.cores} cores, load ${machine.loadAverage}; llama.cpp ${built.release}`);
  const { shape, layers, context, threads } = options;
  console.log(`${shape}, ${layers} layers, context ${context}, ${threads} threads; ratio: llama.cpp's time over ours`);
  const { out, ...settings } = options;
  const report = {
    results: [],
    machine,
    settings: { ...settings, llamaCpp: built.release },
    commit: commit(root),
    date: new Date().toISOString(),
    sides: [],
  };
  for (const weights of options.weights) {
    const { results, sides } = await compare(built, weights, options);
    report.results.push(...results);
    report.sides.push(sides);
  }
  const name = `peers-${machineName(machine)}${options.control ? "-control" : ""}.json`;
  const path = out ?? join(root, "bench/results", name);
  mkdirSync(dirname(path), { recursive: true });
  // Lists of numbers on one line each.
  const text = JSON.stringify(report, null, 1).replaceAll(/\[[\d\s.,]+\]/g, (list) => list.replaceAll(/\s+/g, ""));
  writeFileSync(path, `${text}\n`);
  console.log(`\n${path}`);
}

main().catch((error) => {
  console.error(`bench:peers: ${error.message}`);
  process.exit(1);
});
