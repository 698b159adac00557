// sdar bench adapt with models that are too small to learn anything: stages, costs, what is written, what is refused.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { type Result, shortfalls } from "../lib/bench/adapt-report.js";
import { makeModels, type RunFlags } from "../lib/bench/adapt-runs.js";
import { type Interval, pairedDifference, wilson } from "../lib/bench/statistics.js";
import { packageRoot } from "../lib/checkpoint.js";
import { main, sdar } from "./sdar.js";

const scratch = t.testdir({});
const shape = { layers: 1, hidden: 32, heads: 2, kvHeads: 1, headDim: 16, intermediate: 64 };
const shapeFlag = Object.entries(shape)
  .map((pair) => pair.join("="))
  .join();

t.test("killed after the parent, it goes on, and tells what the models do and cost", async (t) => {
  const out = join(scratch, "evidence");
  const args = ["bench", "adapt", "--out", out, "--shape", shapeFlag, "--samples", "150", "--share", "0.4,0.2"];
  const more = ["--limit", "8", "--threads", "1", "--adapt", "rows=256"];
  const child = spawn(process.execPath, [main, ...args, ...more], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const closed = once(child, "close");
  let told = "";
  for await (const text of child.stderr.setEncoding("utf8")) {
    told += text;
    if (/^sdar-0.4-rows=256: /m.test(told)) break;
  }
  child.kill("SIGKILL");
  await closed;
  const made = statSync(join(out, "parent", "model.safetensors")).mtimeMs;

  const bounds = ["--most-lost", "0", "--least-tokens-per-forward", "50"];
  const { status, stdout, stderr } = await sdar([...args, ...more, ...bounds, "--json"]);
  t.equal(statSync(join(out, "parent", "model.safetensors")).mtimeMs, made, "the parent is the one of before");
  t.notMatch(stderr, /^parent: step/m);
  t.equal(status, 1);
  t.match(stderr, /^sdar: SDAR 40 %: \d\.\d\d tokens per forward; at least 50 are wanted$/m);
  const report = JSON.parse(stdout);
  t.same(JSON.parse(readFileSync(join(out, "adapt.json"), "utf8")), report);
  t.match(report.settings, { shape: { ...shape, context: 1024 }, samples: 150, prompts: 8, adapt: { rows: 256 } });
  const results: Result[] = report.results;
  t.same(
    results.map(({ name }) => name),
    ["parent", "SDAR 40 %", "SDAR 20 %", "lossless 40 %", "lossless 20 %"],
  );
  const parent = (results[0] as Result).training;
  t.equal(parent.rows, parent.tokens, "a row of the parent's is a token");
  for (const result of results) {
    const { kind, wanted, share, training, accuracy, accuracyInterval, difference, ms, tokensPerForward } = result;
    const [low, high] = accuracyInterval as Interval;
    const { all } = accuracy as { all: number };
    t.ok(low <= all && all <= high);
    t.ok(difference.interval[0] <= difference.points && difference.points <= difference.interval[1]);
    t.ok(ms > 0 && tokensPerForward > 0);
    if (kind === "parent") continue;
    const over = training.rows - wanted * parent.rows;
    // Of blocks that grow, each sample meets one length only.
    t.ok(Math.abs(over) < 600, `${result.name}: ${over} rows more than asked for`);
    t.equal(share, training.rows / parent.rows);
    if (kind === "lossless") t.equal(result.sameTokensAsParent, 1);
  }
  t.match(readFileSync(join(out, "adapt.svg"), "utf8"), /^<svg.*position-passes.*lossless.*<\/svg>\n$/s);
  const [first, second] = ["0.2", "0.4"].map((share) =>
    readFileSync(join(out, `sdar-${share}-rows=256.jsonl`), "utf8"),
  );
  t.ok(second?.startsWith(first as string), "a larger share begins with the same samples");
});

t.test("a signal ends it with what there is, and it tells how to go on", async (t) => {
  const out = join(scratch, "stopped");
  const args = ["bench", "adapt", "--out", out, "--shape", shapeFlag, "--samples", "3000", "--share", "0.1"];
  const child = spawn(process.execPath, [main, ...args, "--threads", "1"], { stdio: ["ignore", "ignore", "pipe"] });
  const closed = once(child, "close");
  let told = "";
  for await (const text of child.stderr.setEncoding("utf8")) {
    if (!told && text.startsWith("parent: ")) child.kill("SIGTERM");
    told += text;
  }
  t.same(await closed, [143, null]);
  t.match(told, /^the run was aborted .*parent\.run has it, and the same command goes on$/m);
  t.ok(existsSync(join(out, "parent.run", "state")) && !existsSync(join(out, "parent")));

  // A log that lost lines would make adaptations look cheap.
  const log = join(scratch, "evidence", "parent.run", "log.jsonl");
  writeFileSync(log, readFileSync(log, "utf8").replace(/^.*\n/, ""));
  const begun = ["bench", "adapt", "--out", join(scratch, "evidence"), "--shape", shapeFlag, "--samples", "150"];
  const { status, stderr } = await sdar(begun);
  t.equal(status, 1);
  t.match(stderr, /parent\.run has no whole log of what .*parent has cost/);
});

t.test("rows are counted as training counts them", async (t) => {
  const flags = { form: "quick", shape, samples: 100, share: [0.5], seed: 3, saveSeconds: 60, threads: 1 } as const;
  for (const [recipe, blockLength] of [
    ["sdar", [4]],
    ["views", [16]],
  ] as const) {
    const given = { ...flags, share: [0.5], blockLength: [...blockLength], adapt: { recipe, growth: false } };
    const { parent, adapted } = await makeModels({ ...given, out: join(scratch, recipe) }, new Set());
    const over = (adapted[0]?.rows ?? 0) - 0.5 * parent.rows;
    // The last sample may go beyond by less than its own rows.
    t.ok(over >= 0 && over < 800, `${recipe}: ${over} rows`);
  }
});

t.test("what is refused, by name and before anything is made", async (t) => {
  const good: RunFlags = {
    ...{ out: join(scratch, "refused"), form: "quick", shape, samples: 100, share: [0.5], blockLength: [8] },
    ...{ seed: 0, saveSeconds: 60 },
  };
  const refuse = (flags: Partial<RunFlags>, message: RegExp) =>
    t.rejects(makeModels({ ...good, ...flags }, new Set()), { code: "INVALID_OPTION", message });
  await refuse({ shape: { ...shape, heads: 0 } }, /^--shape: /);
  await refuse({ shape: { layers: 3 } }, /^--shape: /);
  await refuse({ blockLength: [65] }, /^--block-length: /);
  await refuse({ pretrain: { learningRate: 2 } }, /^--pretrain: learningRate: 2 /);
  await refuse({ adapt: { recipe: "best" } }, /^--adapt: recipe: "best" .*sdar, views/);
  await refuse({ adapt: { recipe: "autoregressive" } }, /^--/);
  await refuse({ adapt: { heat: 1 } }, /^--adapt: .*heat/);
  await refuse({ adapt: { epochs: 3 } }, /^--adapt: epochs is not allowed/);
  t.notOk(existsSync(good.out));
  mkdirSync(join(scratch, "other"));
  await refuse({ out: join(scratch, "other") }, /^--out: .*other exists and is of something else/);
  const begun = join(scratch, "evidence");
  await refuse({ out: begun, samples: 99 }, /^--samples: .*evidence was begun with 150, not 99/);
  t.match(await sdar(["bench", "adapt", "--out", good.out, "--adapt", "recipe"]), {
    status: 2,
    stderr: /--adapt.*Give name=value/,
  });
});

t.test("the tutorial's samples", async (t) => {
  const folder = t.testdir({});
  const child = spawn(process.execPath, [join(packageRoot, "examples", "adapt", "roman.mjs"), folder]);
  t.same(await once(child, "close"), [0, null]);
  const lines = (name: string) =>
    readFileSync(join(folder, name), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
  const [learnt, asked] = [lines("roman.jsonl"), lines("roman-test.jsonl")];
  t.same([learnt.length, asked.length, lines("old.jsonl").length], [2000, 500, 2000]);
  const prompts = new Set(learnt.map(({ messages }) => messages[0].content));
  t.equal(prompts.size, 2000);
  t.notOk(
    asked.some(({ prompt }) => prompts.has(prompt)),
    "what is asked was not learnt",
  );
  const values = { I: 1, V: 5, X: 10, L: 50, C: 100, D: 500, M: 1000 };
  const read = (text: string) =>
    [...text].reduce((sum, letter, i) => {
      const [own, next] = [letter, text[i + 1]].map((each) => values[each as keyof typeof values] ?? 0);
      return sum + ((own as number) < (next as number) ? -(own as number) : (own as number));
    }, 0);
  t.ok(asked.every(({ prompt, answer }) => prompt === `Roman: ${read(answer)}`));
});

t.test("differences on the same samples, and bounds", (t) => {
  const own = Uint8Array.from({ length: 200 }, (_, i) => Number(i % 2 === 0));
  const better = own.map((right, i) => (i % 10 === 1 ? 1 : right));
  const { points, interval } = pairedDifference(better, own);
  t.equal(points, 10);
  t.ok(interval[0] > 5 && interval[1] < 15, "narrower than of other samples");
  t.same(pairedDifference(own, own), { points: 0, interval: [0, 0] });
  t.same([wilson(0, 10)[0], wilson(10, 10)[1]], [0, 1], "shares stay within 0 and 1");

  const result = (name: string, share: number, points: number, more = {}) =>
    ({ name, kind: "adapted", share, difference: { points }, tokensPerForward: 3, ...more }) as Result;
  const results = [result("most", 0.1, -2), result("least", 0.02, -20, { tokensPerForward: 1 })];
  t.same(shortfalls(results, { mostLost: 2, leastTokensPerForward: 3 }), []);
  t.same(shortfalls(results, { mostLost: 1 }), ["most: 2.0 points below the parent; at most 1 are allowed"]);
  const odd = result("drafted", 0.1, 0, { kind: "lossless", sameTokensAsParent: 0.5 });
  t.match(shortfalls([...results, odd], {}), [/^drafted: 50 % of the answers/]);
  t.end();
});
