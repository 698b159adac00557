import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { WriteStream } from "node:tty";
import t from "tap";
import { commandOf } from "../lib/cli/chat-commands.js";
import { ChatSession } from "../lib/cli/chat-session.js";
import { History } from "../lib/cli/history.js";
import { dim } from "../lib/cli/terminal.js";
import { Engine } from "../lib/engine.js";
import { describeOptions, setOption } from "../lib/option-text.js";
import { sdar } from "./sdar.js";
import { Terminal } from "./terminal.js";

const questions = ["Sort: 6 60 96 72", "31 x 7"] as const;

t.test("in a pipe, lines are messages of one conversation and answers alone come out", async (t) => {
  const file = join(t.testdir({}), "a.json");
  await using engine = await Engine.load("sdar-nano");
  const generate = { temperature: 2, seed: 5, maxTokens: 12 };
  const first = engine.chat();
  const second = engine.chat({ system: "Short.", generate });
  const answers = [
    await first.send(questions[0]).text(),
    await first.send(questions[1]).text(),
    await second.send("/x").text(),
  ];
  const lines = [...questions, "/reset", "/system Short.", "", "/options temperature=2 seed=5 max-tokens=12", "//x"];
  const input = `${[...lines, `/save ${file}`, "/exit", "never sent"].join("\n")}\n`;
  t.match(await sdar(["chat"], { input }), { status: 0, stdout: `${answers.join("\n")}\n`, stderr: "" });
  const saved = JSON.parse(readFileSync(file, "utf8"));
  t.match(saved, second.toJSON());

  // It goes on, with flags that mean the same, and may be written again.
  const flags = ["--temperature", "2", "--seed", "5", "--max-tokens", "12", "--load", file];
  const next = await second.send("31 x 7").text();
  t.match(await sdar(["chat", ...flags], { input: "31 x 7\n/save\n" }), { status: 0, stdout: `${next}\n` });
  t.equal(JSON.parse(readFileSync(file, "utf8")).messages.length, 4);
  t.match(await sdar(["chat"], { input: "/dance\n1 + 1\n" }), { status: 2, stdout: "", stderr: /no command \/dance/ });
});

t.test("what is wrong is told by name", async (t) => {
  const folder = t.testdir({ broken: "{}", kept: "x" });
  const [broken, kept, missing] = ["broken", "kept", "none"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  await using engine = await Engine.load("sdar-nano");
  const session = new ChatSession(engine, { watch: false, frame: 1, options: {} });
  const refused = async (line: string, message: RegExp) => t.rejects(session.take(line), { message }, line);
  await refused("/options colour=blue", /"colour=blue" is not allowed; give NAME=VALUE of maxTokens/);
  await refused("/options temperature=-1", /temperature: -1 is not allowed/);
  await refused("/quality best", /quality: "best" is not allowed/);
  await refused("/watch perhaps", /"perhaps" is not allowed; give on or off/);
  await refused("/undo", /nothing was said yet/);
  await refused("/save", /give a file/);
  await refused(`/save ${kept}`, /kept: it is there already/);
  t.equal(readFileSync(kept, "utf8"), "x");
  await refused(`/load ${broken}`, /broken is no saved conversation/);
  await refused(`/load ${missing}`, /no file .*none/);
  t.same(session.completions("/q"), ["/quality"]);
  t.same(session.completions("/quality e"), ["/quality exact"]);
  t.same(session.completions("q"), []);
});

t.test("options are written as flags or as the API has them", async (t) => {
  const options = ["top-k=5", "stop=x", "strategy=pairwise", "factor=3"].reduce(setOption, {});
  t.same(options, { topK: 5, stop: "x", denoise: { strategy: "pairwise_factor", factor: 3 } });
  t.equal(describeOptions(options), "topK=5 stop=x strategy=pairwise_factor factor=3");
  t.same(setOption(options, "quality=fast"), { topK: 5, stop: "x", quality: "fast" }, "in the place of a strategy");
  t.same(setOption(setOption(options, "top-k="), "factor="), { stop: "x", denoise: { strategy: "pairwise_factor" } });
  t.same(setOption({}, "seed=18446744073709551615"), { seed: 18446744073709551615n });
  t.same(commandOf("/sy  a b "), { name: "system", rest: "a b" });
  t.throws(() => commandOf("/s"), { code: "INVALID_OPTION" }, "more than one begins so");
});

t.test("the history is kept to its user, and cut", async (t) => {
  const file = join(t.testdir({}), "deep", "history");
  const first = new History(file);
  for (const line of ["a", "a", " secret", "", "b"]) first.add(line);
  t.equal(readFileSync(file, "utf8"), "a\nb\n");
  t.equal(statSync(file).mode & 0o777, 0o600);
  t.same(new History(file).lines, ["a", "b"]);
  writeFileSync(file, Array.from({ length: 2500 }, (_, i) => `${i}\n`).join(""));
  t.equal(new History(file).lines.at(-1), "2499");
  t.equal(readFileSync(file, "utf8").split("\n").length, 1001);
  const blocked = new History(join(file, "below-a-file"));
  blocked.add("x");
  t.same(blocked.lines, ["x"], "for this conversation at least");
  t.match(blocked.problem, /the history is not kept/);
});

t.test("at a terminal Ctrl-C stops the answer, then the line, then the program", async (t) => {
  const XDG_STATE_HOME = t.testdir({});
  const terminal = await Terminal.start(["chat", "--watch", "--frame", "1"], { XDG_STATE_HOME, SDAR_ISA: "portable" });
  if (!terminal) return t.comment("skipped: there is no script(1)");
  t.teardown(() => terminal.kill());
  await terminal.until(/> /);
  terminal.type(`${questions[1]}\r`);
  t.match(await terminal.until(/one at a time: \d+.*> /s), /░/, "the block is drawn");
  terminal.type("/watch off\r");
  await terminal.until(/watching off.*> /s);
  terminal.type("/options temperature=3 ignore-eos=true strategy=sequential\r");
  await terminal.until(/ignoreEos=true.*> /s);
  // What is on the screen until it is interrupted: the message, and the beginning of an answer.
  terminal.type("a\r");
  await terminal.until(/\n[^\n]{9}/);
  terminal.type("\x03");
  await terminal.until(/tokens per forward; interrupted.*> /s);
  terminal.type("half a line\x03");
  await terminal.until(/\^C\r\n.*> /s);
  terminal.type("\x03");
  await terminal.until(/Ctrl-C again, or Ctrl-D, ends the conversation\r\n.*> /s);
  terminal.type("/show\r");
  t.match(await terminal.until(/> a\r\n.*> /s), /> 31 x 7\r\n/);
  terminal.type("\x04");
  t.equal(await terminal.closed(), 0);
  t.match(readFileSync(join(XDG_STATE_HOME, "sdar-engine", "chat-history"), "utf8"), /^31 x 7\n\/watch off\n/);
});

t.test("nothing is dim where nobody wants colours", async (t) => {
  const stream = { isTTY: true, hasColors: () => true } as unknown as WriteStream;
  const had = process.env.NO_COLOR;
  t.teardown(() => (had === undefined ? delete process.env.NO_COLOR : Object.assign(process.env, { NO_COLOR: had })));
  Object.assign(process.env, { NO_COLOR: "1", TERM: "xterm" });
  t.equal(dim("x", stream), "x");
  delete process.env.NO_COLOR;
  t.equal(dim("x", stream), "\x1b[2mx\x1b[0m");
});
