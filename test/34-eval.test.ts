// What sdar eval counts.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { type EvalAnswer, type EvalRun, evaluate, mostOften } from "../lib/bench/eval.js";
import { type EvalItem, readEvalItems } from "../lib/bench/eval-items.js";
import { describeEval, evalResults } from "../lib/bench/eval-report.js";
import { Pattern } from "../lib/bench/patterns.js";
import { wilson } from "../lib/bench/statistics.js";
import { Engine } from "../lib/engine.js";
import { samples } from "./samples.js";
import { sdar } from "./sdar.js";

const lines = (values: object[]) => values.map((value) => `${JSON.stringify(value)}\n`).join("");
const never = new AbortController().signal;

t.test("what is no item is refused by file and line", async (t) => {
  const file = join(t.testdir({}), "prompts.jsonl");
  const refused = (line: string, message: RegExp) => {
    writeFileSync(file, `{"prompt":"a","answer":"b"}\n\n${line}\n`);
    t.throws(() => readEvalItems(file), { code: "DATA_INVALID", message }, line);
  };
  refused("{", /prompts\.jsonl:3: is no JSON/);
  refused("null", /:3: give one of "prompt" and "messages"/);
  refused('{"prompt":"a","messages":[],"answer":"b"}', /give one of/);
  refused('{"messages":[{"text":"a"}],"answer":"b"}', /"messages" must be a list/);
  refused('{"prompt":"a"}', /"answer" must be a string/);
  refused('{"prompt":"a","answer":"b","match":"fuzzy"}', /"match" must be one of exact, pattern, choice/);
  refused('{"prompt":"a","answer":"(","match":"pattern"}', /:3: Invalid regular expression/);
  refused('{"prompt":"a","answer":"b","match":"choice"}', /"choices" go with/);
  refused('{"prompt":"a","answer":"b","match":"choice","choices":["c"]}', /the answer among them/);
  t.throws(() => readEvalItems(join(file, "none")), { code: "FILE_NOT_FOUND" });
  writeFileSync(file, "\n");
  t.throws(() => readEvalItems(file), { code: "DATA_INVALID", message: /holds no prompts/ });
});

t.test("answers are judged as their line says", async (t) => {
  const file = join(t.testdir({}), "prompts.jsonl");
  const answers = [
    { prompt: "a", answer: "217" },
    { prompt: "a", answer: "^2\\d+$", match: "pattern" },
    { prompt: "a", answer: "b", match: "choice", choices: ["a", "b"] },
  ];
  writeFileSync(file, lines(answers));
  const [exact, pattern, choice] = readEvalItems(file) as [EvalItem, EvalItem, EvalItem];
  t.same(
    [" 217\n", "2170", "21"].map((text) => exact.judge(text)),
    [true, false, false],
  );
  t.same(
    ["217", "317", "2"].map((text) => pattern.judge(text)),
    [true, false, false],
  );
  t.same(
    ["b", "a"].map((text) => choice.judge(text)),
    [true, false],
  );
  t.equal(readEvalItems(file, 2).length, 2);
  t.equal(mostOften(["a", "b", " b", "c"]), "b");
  t.equal(mostOften(["a", "b"]), "a", "the first of equals");
});

t.test("a pattern that would take for ever is stopped, and only its line suffers", async (t) => {
  const pattern = new Pattern("^(a+)+$", "x.jsonl:1", 2000);
  t.ok(pattern.test("aaaa"));
  const slow = () => pattern.test(`${"a".repeat(40)}!`);
  t.throws(slow, { code: "DATA_INVALID", message: /x\.jsonl:1: the pattern takes more than 2000 ms/ });
  t.ok(pattern.stopped);
  t.throws(() => pattern.test("aaaa"), { code: "DATA_INVALID" }, "it is not tried again");
  t.throws(() => new Pattern("a".repeat(70_000), "x"), { message: /more than 65536 characters/ });
  t.throws(() => new Pattern("constructor.constructor('return process')(", "x"), { code: "DATA_INVALID" });
});

const item = (task?: string): EvalItem => ({
  where: "x:1",
  prompt: "p",
  answer: "a",
  match: "exact",
  ...(task !== undefined && { task }),
  judge: (text) => text === "a",
});

/** Rows of samples: whether each is right. */
const runOf = (name: string, rights: boolean[][], tasks: string[] = []): EvalRun => ({
  variant: { name, model: "m", options: {} },
  ...{ path: "m", weights: "bf16", device: "cpu", seconds: 2 },
  answers: rights.map(
    (right, index): EvalAnswer => ({
      ...{ item: item(tasks[index]), index, right, texts: right.map(String), majority: right[0] === true },
      usage: { promptTokens: 1, cachedTokens: 0, completionTokens: 10, forwards: 4, tokensPerForward: 2.5 },
    }),
  ),
});

t.test("shares, intervals and paired differences", async (t) => {
  const first = runOf("one", [[true], [true], [false], [false]], ["x", "x", "y", "y"]);
  const second = runOf("two", [[true], [true], [true], [false]], ["x", "x", "y", "y"]);
  const results = evalResults([first, second], 1);
  t.match(results, [
    { name: "one", items: 4, accuracy: { percent: 50 }, tasks: { x: { accuracy: { percent: 100 } }, y: { items: 2 } } },
    { accuracy: { percent: 75 }, difference: { points: 25, items: 4 }, tokensPerSecond: 20, tokensPerForward: 2.5 },
  ]);
  t.same(
    results[0]?.accuracy.interval,
    wilson(2, 4).map((end) => 100 * end),
  );
  t.equal(results[0]?.difference, undefined);
  const cut = runOf("cut", [[false]]);
  t.match(evalResults([first, cut], 1)[1], { difference: { points: -100, items: 1 } }, "of what both have answered");
  t.match(describeEval(results, 1), /\ntwo .*75\.0 \(.*\+25\.0 \(.* to .*\)\n/);

  const several = runOf("k", [
    [true, false, false, true],
    [false, true, false, false],
    [false, false, false, false],
    [false, true, false, false],
  ]);
  t.match(evalResults([several], 4)[0], {
    accuracy: { percent: 25 },
    pass: { percent: 75 },
    majority: { percent: 25 },
  });
  t.same(evalResults([{ ...first, answers: [] }], 1), []);
});

t.test("runs are those of the engine, for every setting", async (t) => {
  const file = join(t.testdir({}), "prompts.jsonl");
  const some = samples().slice(0, 12);
  const bad = { prompt: "x".repeat(5000), answer: "a" };
  const choice = { messages: [{ role: "user", content: "1 + 1" }], answer: "3", match: "choice", choices: ["3", "4"] };
  writeFileSync(file, lines([...some, bad, choice]));
  const items = readEvalItems(file);
  const variants = [
    { name: "a", model: "sdar-nano", options: { maxTokens: 16 } },
    { name: "b", model: "sdar-nano", options: { maxTokens: 16, quality: "fast" as const } },
  ];
  const options = { items, variants, samples: 1, concurrency: 8, load: () => ({}), signal: never };
  const runs = await evaluate(options);
  await using engine = await Engine.load("sdar-nano");
  for (const [at, { options }] of variants.entries()) {
    const texts = await Promise.all(
      some.map(({ prompt }) => engine.generate({ messages: [{ role: "user", content: prompt }], ...options }).text()),
    );
    const answers = runs[at]?.answers ?? [];
    t.same(
      answers.slice(0, some.length).map((one) => one.texts[0]),
      texts,
    );
    t.same(
      answers.slice(0, some.length).map((one) => one.right[0]),
      texts.map((text, i) => text === some[i]?.answer),
    );
    t.match(answers[some.length], { texts: [], right: [false], error: /prompt/ });
    t.match(answers.at(-1)?.texts[0], /^[34]$/);
  }
  t.match(evalResults(runs, 1)[0], { items: 14, errors: 1, error: /prompts\.jsonl:13: / });

  const sampled = [{ name: "s", model: "sdar-nano", options: { maxTokens: 16, temperature: 2, seed: 1 } }];
  const [run] = await evaluate({ ...options, items: items.slice(0, 4), variants: sampled, samples: 3 });
  t.same(
    run?.answers.map(({ texts, right }) => [texts.length, right.length]),
    Array(4).fill([3, 3]),
  );

  const controller = new AbortController();
  const onAnswer = () => controller.abort();
  const [cut, more] = await evaluate({ ...options, concurrency: 1, onAnswer, signal: controller.signal });
  t.ok(cut && cut.answers.length >= 1 && cut.answers.length < items.length, "what was measured until then");
  t.equal(more, undefined);
});

t.test("the command prints tables or JSON, and writes each answer", async (t) => {
  const folder = t.testdir({});
  const [file, out] = [join(folder, "prompts.jsonl"), join(folder, "answers.jsonl")];
  writeFileSync(file, lines(samples().slice(0, 6)));
  const settings = ["--setting", "threshold=0.9", "--setting", "strategy=pairwise,factor=5"];
  const { status, stdout, stderr } = await sdar(["eval", file, ...settings, "--json", "--out", out]);
  t.match({ status, stderr }, { status: 0, stderr: "" });
  t.match(JSON.parse(stdout), {
    results: [
      { name: "threshold=0.9", items: 6, options: { denoise: { threshold: 0.9 } } },
      { name: "strategy=pairwise,factor=5", difference: { items: 6 } },
    ],
    settings: { prompts: 6, samples: 1, interrupted: false },
  });
  t.equal(readFileSync(out, "utf8").trim().split("\n").length, 12);
  t.match(await sdar(["eval", file, "--setting", "colour=blue"]), {
    status: 2,
    stderr: /"colour=blue" is not allowed/,
  });
});
