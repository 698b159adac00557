// npm run roofline: predicted step times and tokens per second of the CUDA backend; for the card whose measurements the
// prediction is fitted to, also how far it is from them.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { parseArgs } from "node:util";
import * as efficiencies from "./efficiencies.mjs";
import { measuredCard, measuredLaunches, measuredSteps } from "./measured.mjs";
import { cards, familyOf, models, predict } from "./predict.mjs";

const formats = ["bf16", "int8", "int4"];
const shapes = Object.keys(models).filter((name) => name !== "sdar-nano");
const usage = `npm run roofline -- [options]       lists are separated by commas
  --card a100-80g,…               ${Object.keys(cards).join(", ")} (default: all)
  --shape sdar-4b                 ${shapes.join(", ")}
  --weights bf16                  ${formats.join(", ")}
  --batch 1,8,32,128
  --block 4,8,16,32
  --tokens-per-forward 1,2        filled in each forward; those that exceed the block are left out
  --context 512                   tokens before the active block
  --kernels                       also the launches of each step, and those that were measured
  --json                          one JSON object instead of tables
  --out FILE                      the JSON to a file
`;

function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}

function parseOptions() {
  const text = (value) => ({ type: "string", default: value });
  const flag = { type: "boolean", default: false };
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        card: text(Object.keys(cards).join(",")),
        shape: text("sdar-4b"),
        weights: text("bf16"),
        batch: text("1,8,32,128"),
        block: text("4,8,16,32"),
        "tokens-per-forward": text("1,2"),
        context: text("512"),
        kernels: flag,
        json: flag,
        out: { type: "string" },
        help: flag,
      },
    }));
  } catch (error) {
    fail(`${error.message}\n${usage}`);
  }
  if (values.help) {
    process.stdout.write(usage);
    process.exit(0);
  }
  const names = (option, allowed) => {
    const list = values[option].split(",");
    const unknown = list.find((name) => !allowed.includes(name));
    if (unknown !== undefined) fail(`--${option} ${unknown}: allowed are ${allowed.join(", ")}`);
    return list;
  };
  const numbers = (option, least, most, valid = (n) => Number.isInteger(n)) =>
    values[option].split(",").map((item) => {
      const n = Number(item);
      if (item === "" || !valid(n) || n < least || n > most)
        fail(`--${option} ${item}: allowed are ${least} to ${most}`);
      return n;
    });
  return {
    ...values,
    cards: names("card", Object.keys(cards)),
    shapes: names("shape", shapes),
    weights: names("weights", formats),
    batches: numbers("batch", 1, 1024),
    blocks: numbers("block", 1, 64),
    rates: numbers("tokens-per-forward", 1, 64, Number.isFinite),
    contexts: numbers("context", 0, 32768),
  };
}

function* cases(o) {
  for (const shape of o.shapes)
    for (const weights of o.weights)
      for (const card of o.cards)
        for (const block of o.blocks)
          for (const tokensPerForward of o.rates.filter((rate) => rate <= block))
            for (const batch of o.batches)
              for (const context of o.contexts) yield { card, shape, weights, batch, block, tokensPerForward, context };
}

const markdown = (rows) => {
  const [head, ...body] = rows.map((row) => `| ${row.join(" | ")} |`);
  return [head, `|${rows[0].map(() => "---|").join("")}`, ...body].join("\n");
};

const duration = (ms) => (ms < 10 ? ms.toFixed(2) : ms.toFixed(1));

/** One table per shape, format, card, tokens per forward and context: blocks down, batches across. */
function tables(o, results) {
  const parts = [];
  const keyOf = (r) => [r.shape, r.weights, r.card, r.tokensPerForward, r.context].join();
  for (const group of groupBy(results, keyOf)) {
    const [{ shape, weights, card, tokensPerForward, context }] = group;
    const cell = (block, batch) => {
      const r = group.find((one) => one.block === block && one.batch === batch);
      return r.fits ? `${Math.round(r.tokensPerSecond)} (${duration(r.ms)} ms)` : "does not fit";
    };
    parts.push(
      `\n${shape}, ${weights}, ${cards[card].name}, ${tokensPerForward} tokens per forward, context ${context}: predicted tokens/s (step)\n`,
      markdown([
        ["block", ...o.batches.map((batch) => `batch ${batch}`)],
        ...[...new Set(group.map((r) => r.block))].map((block) => [
          block,
          ...o.batches.map((batch) => cell(block, batch)),
        ]),
      ]),
    );
    if (o.kernels)
      for (const result of group) parts.push(`\nblock ${result.block}, batch ${result.batch}\n`, kernels(result));
  }
  if (measured) parts.push(...beside(o));
  return `${parts.join("\n")}\n`;
}

function groupBy(items, keyOf) {
  const groups = new Map();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups.values();
}

const kernels = ({ launches }) =>
  markdown([
    ["launch", "count", "µs each", "limited by", "memory MB", "L2 MB", "Gop"],
    ...launches.map(({ kernel, count, microseconds, limit, memory, cache, operations }) => [
      kernel,
      count,
      microseconds.toFixed(1),
      limit,
      (memory / 1e6).toFixed(2),
      (cache / 1e6).toFixed(2),
      (operations / 1e9).toFixed(2),
    ]),
  ]);

const percent = (share) => `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(0)} %`;
const meanSquare = (list) => Math.sqrt(list.reduce((sum, { error }) => sum + error * error, 0) / list.length);

/** The measured steps of the shapes asked for, and with --kernels the errors of all kernels, each beside its prediction. */
function* beside(o) {
  const steps = measured.steps.filter((s) => o.shapes.includes(s.shape) && o.weights.includes(s.weights));
  if (steps.length > 0) {
    yield `\nMeasured on an ${cards[measuredCard].name} (${measured.file}) and predicted for the same steps, prompts included: ms\n`;
    yield markdown([
      [
        ...["shape", "block", "per forward", "batch", "sequences in a step", "measured", "predicted", "error"],
        "predicted with the whole batch in each step",
      ],
      ...steps.map((s) => [
        s.shape,
        s.block,
        s.tokensPerForward,
        s.batch,
        (s.sequences + s.prompts).toFixed(0),
        duration(s.measured),
        duration(s.predicted),
        percent(s.error),
        `${Math.round(s.all.tokensPerSecond)} tokens/s (${duration(s.all.ms)} ms)`,
      ]),
    ]);
  }
  if (!o.kernels) return;
  yield "\nLaunches, measured alone and predicted: root of the mean square of the errors, and the largest\n";
  const groups = groupBy(measured.launches, (l) => [l.kernel.split(" ")[0], l.weights].join());
  yield markdown([
    ["kernel", "weights", "sizes", "error", "lowest", "highest"],
    ...[...groups].map((list) => {
      const errors = list.map((l) => l.error);
      return [
        list[0].kernel.split(" ")[0],
        list[0].weights,
        list.length,
        `${(100 * meanSquare(list)).toFixed(0)} %`,
        percent(Math.min(...errors)),
        percent(Math.max(...errors)),
      ];
    }),
  ]);
}

const o = parseOptions();
const results = [...cases(o)].map(predict);
const measured = o.cards.includes(measuredCard)
  ? { file: "bench/results/gpu-h200.json", steps: measuredSteps(), launches: measuredLaunches() }
  : undefined;
const report = {
  results,
  measured,
  assumptions: efficiencies,
  cards: Object.fromEntries(o.cards.map((name) => [name, { ...cards[name], family: familyOf(cards[name]) }])),
};
const text = `${JSON.stringify(report, null, 1)}\n`;
if (o.out) {
  mkdirSync(dirname(o.out), { recursive: true });
  writeFileSync(o.out, text);
}
if (o.json) process.stdout.write(text);
else
  process.stdout.write(
    `Predictions from bytes and operations; the tables by block and batch were not measured. What is assumed: bench/gpu/roofline.\n${tables(o, results)}`,
  );
