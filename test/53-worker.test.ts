// sdar enqueue and sdar worker: answers, what is poison, and what is wrong with a command.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { Engine } from "../lib/index.js";
import { enqueue } from "../lib/worker/queue.js";
import { mergeResults, ResultsFile } from "../lib/worker/results.js";
import { withoutRedis } from "./redis.js";
import { sdar } from "./sdar.js";
import { linesOf, read, setUp } from "./worker.js";

const skip = withoutRedis();
const engine = await Engine.load("sdar-nano");
t.teardown(() => engine.dispose());

t.test("answers are the engine's; what is poison dies by file and line", { skip }, async (t) => {
  const { enqueue, finish, dead, results, flags } = await setUp(t, [
    { id: "a", prompt: "31 x 7", maxTokens: 8 },
    { id: 7, messages: [{ role: "user", content: "31 x 7" }], maxTokens: 8, priority: 50 },
    "",
    "no JSON",
    { id: "b", prompt: "x", temperature: -1 },
    { prompt: "31 x 7", format: { type: "regex", pattern: "[a-z]{3}" }, n: 2, temperature: 1, seed: 5, maxTokens: 8 },
    "[1]",
    { id: "late", prompt: "31 x 7", deadline: 1, ignoreEos: true, denoise: { strategy: "sequential" } },
  ]);
  t.equal(await enqueue(), 7);
  t.equal(await enqueue(), 7, "which adds nothing");
  const tally = await finish(engine);
  t.match(tally, { written: 3, repeated: 0, dead: 4, retried: 1 });

  const lines = linesOf(results);
  const of = (line: number) => lines.find((each) => each.line === line);
  t.equal(lines.length, 3);
  const raw = await engine.generate({ prompt: "31 x 7", maxTokens: 8 }).result();
  const { text, finishReason, usage } = raw;
  t.match(of(1), { job: "id-a", id: "a", file: "in.jsonl", text, finishReason, usage: { forwards: usage.forwards } });
  const messages = [{ role: "user", content: "31 x 7" }];
  t.match(of(2), { id: 7, text: await engine.generate({ messages, maxTokens: 8 }).text() });
  const three = /^[a-z]{3}$/;
  t.match(of(6), { job: /^line-6-[0-9a-f]{24}$/, value: three, answers: [{ text: three }, { text: three }] });

  t.match(await dead(), [
    { file: "in.jsonl", line: 4, attempts: 1, reason: /^in\.jsonl:4: INVALID_OPTION: it is no JSON: / },
    { job: "id-b", line: 5, reason: /^in\.jsonl:5: INVALID_OPTION: temperature: -1 / },
    { line: 7, reason: /^in\.jsonl:7: INVALID_OPTION: line: this list / },
    { job: "id-late", attempts: 2, reason: /^in\.jsonl:8: DEADLINE_EXCEEDED: / },
  ]);
  const listed = await sdar(["worker", ...flags, "--dead"]);
  t.match(listed, {
    status: 0,
    stdout: /^in\.jsonl:4: INVALID_OPTION: .* \(line-4-/m,
    stderr: "sdar: 4 dead job(s)\n",
  });
  t.equal(await enqueue(), 7);
  t.match(await finish(engine), { written: 0, repeated: 0, dead: 0 }, "what is done or dead stays so");
  await dead(true);
  t.match(await finish(engine), { written: 0, dead: 4 });
});

t.test("what is wrong with a command is said", { skip }, async (t) => {
  const folder = t.testdir({ twice: '{"id":1,"prompt":"a"}\n{"id":"1","prompt":"b"}\n' });
  t.match(await sdar(["worker"]), { status: 2, stderr: /--results FILE is needed/ });
  const refuse = (file: string, redis = "/nowhere/redis.sock", queue = "a") =>
    enqueue(file, { redis, queue }, { priority: 0, attempts: 1, backoffMs: 0 });
  await t.rejects(refuse("/nowhere"), { code: "FILE_NOT_FOUND", message: /^cannot read \/nowhere/ });
  await t.rejects(refuse(join(folder, "twice")), {
    code: "DATA_INVALID",
    message: 'twice:2: line 1 has the id "1", too',
  });
  await t.rejects(refuse("x", "localhost"), { code: "INVALID_OPTION", option: "redis" });
  await t.rejects(refuse("x", "/x", "a:b"), { code: "INVALID_OPTION", option: "queue" });
  writeFileSync(join(folder, "one"), "{}\n");
  await t.rejects(refuse(join(folder, "one")), { message: /^Redis at \/nowhere\/redis\.sock: .*ENOENT/ });
});

t.test("files of results: torn lines, other files, and joining them", async (t) => {
  const folder = t.testdir({
    torn: '{"job":"a"}\n{"job":"b"}\n{"jo',
    other: '{"job":"c"}\n{"job":"a"}\n',
    foreign: '{"a":1}\n',
  });
  const at = (name: string) => join(folder, name);
  const file = await ResultsFile.open(at("torn"));
  t.equal(read(at("torn")), '{"job":"a"}\n{"job":"b"}\n');
  t.same(await Promise.all(["b", "d", "d", "e"].map((job) => file.append({ job }))), [false, true, false, true]);
  await t.rejects(ResultsFile.open(at("torn")), { code: "INVALID_OPTION", option: "results" });
  await file.close();
  t.same(
    linesOf(at("torn")).map(({ job }) => job),
    ["a", "b", "d", "e"],
  );
  await t.rejects(ResultsFile.open(at("foreign")), { code: "DATA_INVALID", message: /foreign:1: this is no line/ });
  t.equal(read(at("foreign")), '{"a":1}\n');
  t.same(await mergeResults([at("torn"), at("other")], at("all")), { lines: 5, double: 1 });
  t.same(
    linesOf(at("all")).map(({ job }) => job),
    ["a", "b", "d", "e", "c"],
  );
  await t.rejects(mergeResults([at("none")], at("all")), { code: "FILE_UNREADABLE" });
  t.equal(linesOf(at("all")).length, 5, "what was there stays");
  await t.rejects(ResultsFile.open("/nowhere/x"), { code: "FILE_UNWRITABLE" });
});
