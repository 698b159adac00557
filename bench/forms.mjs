// What a form costs and buys: node bench/forms.mjs [--model FOLDER] [--json]
// The shipped model's held-out orders with their schema and free, at block lengths 8 and 16: exact answers, tokens per forward,
// tokens per second, in turns. With --model (a checkpoint with a tokenizer; random weights will do) the time of a step of 16
// requests, held to a schema and free, in turns.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Engine } from "../dist/index.js";

const { values } = parseArgs({ options: { model: { type: "string" }, json: { type: "boolean" } } });
const rounds = 5;
const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
const text = { type: "string", maxLength: 20 };
const order = {
  type: "object",
  properties: {
    name: text,
    item: text,
    color: text,
    qty: { type: "integer", minimum: 0 },
    price: { type: "number", minimum: 0 },
    city: text,
  },
  required: ["name", "item", "color", "qty", "price", "city"],
  additionalProperties: false,
};

async function orders() {
  const lines = readFileSync(new URL("../test/golden/heldout.jsonl", import.meta.url), "utf8")
    .trim()
    .split("\n");
  const samples = lines.map((line) => JSON.parse(line)).filter(({ task }) => task === "order");
  const engine = await Engine.load("sdar-nano");
  const results = [];
  for (const blockLength of [8, 16]) {
    const kinds = { free: {}, schema: { format: { type: "json_schema", schema: order } } };
    const times = { free: [], schema: [] };
    const counts = {};
    for (let round = 0; round < rounds; round++)
      for (const [kind, more] of Object.entries(kinds)) {
        let [right, tokens, forwards] = [0, 0, 0];
        const began = performance.now();
        for (const { prompt, answer } of samples) {
          const messages = [{ role: "user", content: prompt }];
          const result = await engine.generate({ messages, maxTokens: 96, blockLength, ...more }).result();
          right += result.text === answer ? 1 : 0;
          tokens += result.usage.completionTokens;
          forwards += result.usage.forwards;
        }
        times[kind].push((1000 * tokens) / (performance.now() - began));
        counts[kind] = { exact: right / samples.length, tokensPerForward: tokens / forwards };
      }
    for (const kind of Object.keys(kinds))
      results.push({
        blockLength,
        kind,
        samples: samples.length,
        ...counts[kind],
        tokensPerSecond: median(times[kind]),
      });
  }
  await engine.dispose();
  return results;
}

async function steps(path) {
  const engine = await Engine.load(path, { maxConcurrent: 16, prefixCache: false });
  const prompt = "Orders as JSON, please: ".repeat(8);
  // Whole blocks of it: the rest is part of the first block that is denoised.
  const promptTokens = Math.floor((await engine.countTokens(prompt)) / 4) * 4;
  const kinds = {
    free: { ignoreEos: true },
    schema: { format: { type: "json_schema", schema: { type: "array", items: order, minItems: 15 } } },
  };
  const ms = { free: [], schema: [] };
  const schedulerMs = { free: [], schema: [] };
  const rows = {};
  for (let round = 0; round < 3; round++)
    for (const [kind, more] of Object.entries(kinds)) {
      const ask = (seed) => engine.generate({ prompt, maxTokens: 600, blockLength: 4, temperature: 1, seed, ...more });
      const known = engine.stats().prefillTokens;
      const runs = Array.from({ length: 16 }, (_, seed) => ask(seed));
      while (engine.stats().prefillTokens < known + 16 * promptTokens) await sleep(100);
      await sleep(1000);
      const before = engine.stats();
      await sleep(5000);
      const after = engine.stats();
      for (const run of runs) run.abort();
      await Promise.all(runs.map((run) => run.result()));
      const count = after.steps - before.steps;
      ms[kind].push((1000 * (after.stepSeconds - before.stepSeconds)) / count);
      schedulerMs[kind].push((1000 * (after.schedulerSeconds - before.schedulerSeconds)) / count);
      rows[kind] = (after.rows - before.rows) / count;
    }
  await engine.dispose();
  return Object.keys(kinds).map((kind) => ({
    kind,
    rowsPerStep: rows[kind],
    stepMs: median(ms[kind]),
    schedulerMs: median(schedulerMs[kind]),
  }));
}

const results = values.model ? await steps(values.model) : await orders();
if (values.json) console.log(JSON.stringify(results));
else console.table(results);
