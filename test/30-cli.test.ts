import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { packageRoot, shippedModelPath } from "../lib/checkpoint.js";
import { prompts } from "../lib/cli/prompts.js";
import { Engine } from "../lib/engine.js";
import { main, sdar } from "./sdar.js";

const question = "Count the atoms in Ca3(PO4)2";
const statistics = /^13 tokens, [\d.]+ tokens\/s, [\d.]+ tokens per forward\n$/;

t.test("generate prints the answer, and what it took on standard error", async (t) => {
  t.match(await sdar(["generate", question]), { status: 0, stdout: "Ca 3, P 2, O 8\n", stderr: statistics });
  t.match(await sdar(["generate"], { input: `${question}\n` }), { status: 0, stdout: "Ca 3, P 2, O 8\n" });
  t.match(await sdar(["generate", "-"], { input: question }), { stdout: "Ca 3, P 2, O 8\n" });
  const plain = await sdar(["generate", question, "--watch"]);
  t.match(plain, { stdout: "Ca 3, P 2, O 8\n", stderr: statistics }, "no terminal, no drawing");
});

t.test("generate prints reasoning on standard error", async (t) => {
  const model = t.testdir({});
  cpSync(shippedModelPath(), model, { recursive: true });
  const config = join(model, "tokenizer_config.json");
  const chat_template = "{{ messages[0].content }}<think>";
  writeFileSync(config, JSON.stringify({ ...JSON.parse(readFileSync(config, "utf8")), chat_template }));
  const { status, stdout, stderr } = await sdar([
    "generate",
    "1 + 1",
    "-m",
    model,
    "-n",
    "8",
    "--temperature",
    "4",
    "--seed",
    "1",
  ]);
  t.match({ status, stdout }, { status: 0, stdout: "\n" });
  t.match(stderr, /^\S.*\n\d tokens, /s);
});

t.test("the prompts that help and README name are answered right", async (t) => {
  const readme = readFileSync(join(packageRoot, "README.md"), "utf8");
  const { stdout: help } = await sdar(["generate", "--help"]);
  await using engine = await Engine.load("sdar-nano");
  for (const { prompt, answer } of prompts) {
    t.equal(await engine.generate({ messages: [{ role: "user", content: prompt }] }).text(), answer);
    t.ok(help.includes(`sdar generate '${prompt}'`), prompt);
    t.ok(readme.includes(prompt), prompt);
  }
});

t.test("help is in groups and ends with examples", async (t) => {
  const { stdout } = await sdar(["--help"]);
  t.match(stdout, /\nUse:\n {2}generate .*\nMeasure:\n.*\nExamples:\n {2}sdar generate /s);
  t.match((await sdar(["generate", "--help"])).stdout, /\nOutput:\n.*\nSampling:\n.*\nExamples/s);
});

t.test("a prompt that is empty is refused", async (t) => {
  const refused = { status: 2, stdout: "", stderr: /^error: no prompt: standard input is empty\n/ };
  for (const input of ["", "\n", " \n\n"]) t.match(await sdar(["generate"], { input }), refused);
  t.match(await sdar(["generate", " "]), { status: 2, stderr: /^error: no prompt: it is empty\n/ });
});

t.test("on a terminal, generate asks for a prompt", async (t) => {
  // util-linux's script makes a terminal.
  const command = `${process.execPath} ${main} generate`;
  const child = spawn("script", ["-qec", command, "/dev/null"], {
    stdio: "pipe",
    env: { ...process.env, TERM: "xterm" },
  });
  const started = await Promise.race([once(child, "spawn").then(() => true), once(child, "error").then(() => false)]);
  if (!started) return t.comment("skipped: there is no script(1)");
  t.teardown(() => child.kill());
  let shown = "";
  let asked = false;
  child.stdout.setEncoding("utf8").on("data", (text) => {
    shown += text;
    if (asked || !shown.includes("Prompt: ")) return;
    asked = true;
    child.stdin.write("Sort: 6 60 96 72\n");
  });
  await once(child, "close");
  t.match(shown, /Try: Count the atoms.*Prompt: .*6 60 72 96.*next: sdar generate 'ISO date/s);
});

t.test("the doctor begins with a verdict", async (t) => {
  t.match((await sdar(["doctor"])).stdout, /^The engine runs here, on the .*\n\nnode /);
});

t.test("generate --json", async (t) => {
  const { status, stdout, stderr } = await sdar([
    "generate",
    question,
    "--json",
    "--seed",
    "18446744073709551615",
    "--watch",
  ]);
  t.match({ status, stderr }, { status: 0, stderr: "" });
  const json = JSON.parse(stdout);
  t.match(json, {
    text: "Ca 3, P 2, O 8",
    finishReason: "end",
    seed: "18446744073709551615",
    usage: { completionTokens: 13 },
  });
  t.match(json.tokens[0], { id: Number, step: 0, confidence: Number });
  for (const name of ["loadMs", "firstTextMs", "totalMs", "tokensPerSecond"]) t.ok(json.timings[name] > 0, name);
});

t.test("options of generate reach the engine", async (t) => {
  const json = async (...args: string[]) => JSON.parse((await sdar(["generate", question, "--json", ...args])).stdout);
  t.match(await json("--strategy", "static", "--block-length", "4"), {
    tokens: [{ position: 21, block: 5 }, { block: 5 }, { block: 5 }, { position: 24, block: 6 }],
  });
  t.match(await json("--max-tokens", "3"), { finishReason: "length", usage: { completionTokens: 3 } });
  t.match(await json("--stop", "zzz", "--stop", ", P"), { text: "Ca 3", stopMatched: ", P" });
  t.match(await json("--strategy", "sequential", "--steps", "1", "--block-length", "8"), {
    tokens: [{ step: 0 }, { step: 0 }],
  });
  t.match(await json("--raw", "--max-tokens", "1"), { usage: { promptTokens: Number } });
  const sampled = ["--temperature", "2", "--seed", "5", "--top-k", "50", "--top-p", "0.95", "--max-tokens", "20"];
  t.equal((await json(...sampled)).text, (await json(...sampled)).text);
  t.match(await json("--system", "x", "--threshold", "0.5", "--weights", "f32", "--threads", "1"), {
    usage: { promptTokens: Number },
  });
});

t.test("what is wrong is one line on standard error", async (t) => {
  const usage = async (args: string[], message: RegExp) =>
    t.match(await sdar(args), { status: 2, stdout: "", stderr: message });
  await usage(
    ["generate", "x", "--strategy", "best"],
    /^sdar: denoise\.strategy: "best" is not allowed; give one of .*\n$/,
  );
  await usage(["generate", "x", "--threshold", "2"], /^sdar: denoise\.threshold: 2 is not allowed.*\n$/);
  await usage(["generate", "x", "--max-tokens", "many"], /--max-tokens.* not a whole number/);
  await usage(["generate", "x", "--seed", "1.5"], /--seed.* not a whole number/);
  await usage(["generate", "x", "--colour"], /unknown option '--colour'/);
  await usage(["dance"], /dance/);
  const failure = async (args: string[], message: RegExp) =>
    t.match(await sdar(args), { status: 1, stdout: "", stderr: message });
  await failure(["generate", "x", "--model", "no/such-model"], /^sdar: no model no\/such-model.*\n$/);
  await failure(
    ["generate", "x", "--model", join(packageRoot, "test/golden/tiny-dense")],
    /^sdar: .*no tokenizer\.json.*\n$/,
  );
  await failure(["generate", "", "--raw"], /^sdar: the prompt is empty.*\n$/);
});

t.test("help and version", async (t) => {
  t.match(await sdar(["--help"]), { status: 0, stdout: /generate/ });
  t.match(await sdar(["generate", "--help"]), { status: 0, stdout: /--watch/ });
  t.match(await sdar(["--version"]), { status: 0, stdout: /^\d+\.\d+\.\d+\n$/ });
});

t.test("doctor", async (t) => {
  t.match(await sdar(["doctor"]), { status: 0, stdout: /instructionSets .*portable/ });
  const { stdout } = await sdar(["doctor", "--json"]);
  t.match(JSON.parse(stdout), { addon: /\.node$/, problems: [], model: /sdar-nano$/ });
});

/** Long enough to be interrupted, on any machine. */
const long = [
  "generate",
  "a",
  "--raw",
  "--strategy",
  "sequential",
  "--ignore-eos",
  "--temperature",
  "3",
  "--seed",
  "1",
];

t.test("Ctrl-C ends the generation and prints what was there", async (t) => {
  const child = spawn(process.execPath, [main, ...long], { env: { ...process.env, SDAR_ISA: "portable" } });
  let stdout = "";
  let stderr = "";
  child.stderr.on("data", (text) => {
    stderr += text;
  });
  child.stdout.on("data", (text) => {
    if (stdout === "") child.kill("SIGINT");
    stdout += text;
  });
  const [status] = await once(child, "close");
  t.equal(status, 130);
  t.match(stderr, /^\d+ tokens, .*; interrupted\n$/);
  t.ok(stdout.endsWith("\n"));
});

t.test("Ctrl-C while a checkpoint is made leaves nothing of it", async (t) => {
  const parent = t.testdir({ kept: "x" });
  const out = join(parent, "deep", "model");
  const make = ["make-checkpoint", "--shape", "sdar-1.7b", "--layers", "2", "--out", out];
  const child = spawn(process.execPath, [main, ...make], { stdio: "ignore" });
  const closed = once(child, "close");
  while (child.exitCode === null && !existsSync(join(parent, "deep"))) await sleep(5);
  child.kill("SIGINT");
  t.same(await closed, [130, null]);
  t.same(readdirSync(parent), ["kept"]);
});

t.test("a reader that stops reading is no error", async (t) => {
  const child = spawn(process.execPath, [main, ...long], { env: { ...process.env, SDAR_ISA: "portable" } });
  let stderr = "";
  child.stderr.on("data", (text) => {
    stderr += text;
  });
  child.stdout.once("data", () => child.stdout.destroy());
  const [status] = await once(child, "close");
  t.match({ status, stderr }, { status: 0, stderr: "" });
});
