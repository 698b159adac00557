// Training where something goes wrong around it: files, folders, signals, readers, callbacks.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { shippedModelPath } from "../lib/checkpoint.js";
import { Training } from "../lib/train/binding.js";
import { adapt, type PretrainOptions, pretrain } from "../lib/train/index.js";
import { main } from "./sdar.js";

const shape = { layers: 1, hidden: 32, heads: 2, kvHeads: 1, headDim: 16, intermediate: 64, context: 64 };
const lines = Array.from({ length: 60 }, (_, i) => JSON.stringify({ prompt: `${i} + 1 = `, completion: `${i + 1}` }));

function begin(folder: string) {
  const data = join(folder, "data.jsonl");
  writeFileSync(data, lines.join("\n"));
  return { shape, tokenizer: shippedModelPath(), data, rows: 128, threads: 1, learningRate: 1e-3 };
}

t.test("what would come out at the end, or never, is refused at the beginning", async (t) => {
  const folder = t.testdir({ stateful: { state: "" } });
  const at = (...names: string[]) => join(folder, ...names);
  const options = { ...begin(folder), to: at("to") };
  symlinkSync(at("nothing"), at("link"));
  execFileSync("mkfifo", [at("pipe")]);
  writeFileSync(at("long.jsonl"), `{"text":"${"x".repeat(2 ** 23 + 1)}"}\n${lines[0]}`);
  const cases: [change: Partial<PretrainOptions>, code: string, message: RegExp][] = [
    [{ data: at("pipe") }, "FILE_UNREADABLE", /pipe: it is no regular file/],
    [{ data: "/dev/zero" }, "FILE_UNREADABLE", /zero: it is no regular file/],
    [{ data: folder }, "FILE_UNREADABLE", /it is no regular file/],
    [{ data: at("long.jsonl") }, "DATA_INVALID", /long\.jsonl:1: a text has 8388609 characters; at most/],
    [{ to: at("link") }, "INVALID_OPTION", /^to: .*a folder that does not exist yet/],
    [{ run: at("to") }, "INVALID_OPTION", /^run: .*apart from the finished model's/],
    [{ run: at("to", "run") }, "INVALID_OPTION", /^run: .*apart from the finished model's/],
    [{ to: at("run", "model"), run: at("run") }, "INVALID_OPTION", /^run: .*apart from the finished model's/],
    [{ to: at("data.jsonl", "x"), run: at("run") }, "FILE_UNWRITABLE", /data\.jsonl is no folder/],
    [{ run: at("data.jsonl", "x") }, "FILE_UNWRITABLE", /data\.jsonl is no folder/],
    [{ run: at("stateful") }, "INVALID_OPTION", /^run: .* has a state, but not the settings\.json/],
    [{ tokens: 1e15 }, "INVALID_OPTION", /^tokens: 1000000000000000 .*at most \d+ with these 60 samples/],
  ];
  for (const [change, code, message] of cases)
    await t.rejects(pretrain({ ...options, ...change }), { code, message }, String(message));
  t.strictSame(readdirSync(folder).sort(), ["data.jsonl", "link", "long.jsonl", "pipe", "stateful"], "nothing is left");
});

t.test("parents: files that no checkpoint may have do not go along; what is wrong is named", async (t) => {
  const folder = t.testdir({});
  const { data, ...options } = begin(folder);
  const from = join(folder, "parent");
  await pretrain({ ...options, data, to: from });
  writeFileSync(join(from, "model.py"), "");
  writeFileSync(join(from, "modeling.py"), "");
  writeFileSync(join(from, "tensors.npz"), "");
  truncateSync(join(from, "tensors.npz"), 2 ** 29);
  const to = join(folder, "to");
  await adapt({ from, data, to, threads: 1 });
  t.strictSame(
    ["modeling.py", "model.py", "tensors.npz"].map((name) => existsSync(join(to, name))),
    [true, false, false],
  );

  const broken = (name: string, change: object) => {
    const copy = join(folder, `broken-${name}`);
    mkdirSync(copy);
    for (const each of ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
      cpSync(join(from, each), join(copy, each));
    const json = JSON.parse(readFileSync(join(copy, name), "utf8"));
    writeFileSync(join(copy, name), JSON.stringify({ ...json, ...change }));
    return adapt({ from: copy, data: messages, to: join(folder, "x"), threads: 1 });
  };
  const messages = join(folder, "messages.jsonl");
  writeFileSync(messages, '{"messages":[{"role":"assistant","content":"x"}]}');
  await t.rejects(broken("config.json", { max_position_embeddings: null }), {
    code: "CONFIG_INVALID",
    message: /broken-config\.json\/config\.json: max_position_embeddings is null; allowed/,
  });
  await t.rejects(broken("tokenizer_config.json", { chat_template: "{% for %}" }), {
    message: /messages\.jsonl:1: .*broken-tokenizer_config\.json\/tokenizer_config\.json: line 1/,
  });
});

t.test("a callback that throws loses no step; two that begin at once are one run", async (t) => {
  const folder = t.testdir({});
  const options = { ...begin(folder), to: join(folder, "to"), epochs: 3 };
  const onProgress = ({ step }: { step: number }) => {
    if (step === 3) throw new Error("mine");
  };
  await t.rejects(pretrain({ ...options, onProgress }), { message: "mine" });
  await pretrain({ ...options, onStart: ({ stepsDone }) => t.equal(stepsDone, 3) });

  // One that was killed while it prepared, and settings that are no longer whole.
  const killed = join(folder, "same.run", "begin-abc123");
  mkdirSync(killed, { recursive: true });
  const same = { ...options, to: join(folder, "same") };
  const ends = await Promise.allSettled([pretrain(same), pretrain(same)]);
  t.equal(ends.filter(({ status }) => status === "fulfilled").length, 1);
  for (const end of ends) if (end.status === "rejected") t.match(end.reason, { code: "INVALID_OPTION" });
  t.notOk(existsSync(killed));
  writeFileSync(join(folder, "same.run", "settings.json"), '{"format":1}');
  await t.rejects(pretrain({ ...same, to: join(folder, "other"), run: join(folder, "same.run") }), {
    code: "CHECKPOINT_INVALID",
    message: /settings\.json: damaged, it has no settings/,
  });
});

/** The command line, with more options. */
function command(folder: string, to: string, ...more: string[]): string[] {
  const sizes = Object.entries(shape).map((size) => size.join("="));
  return [
    ...[main, "pretrain", "--shape", sizes.join(), "--tokenizer", shippedModelPath(), "--to", to],
    ...["--data", join(folder, "data.jsonl"), "--rows", "128", "--threads", "1", ...more],
  ];
}

/** Writing fails in the middle of a file, as on a full disk. */
t.test(
  "no room for the state: an error that names it, the state before is kept, and it goes on from there",
  async (t) => {
    const folder = t.testdir({});
    begin(folder);
    const epochs = "--epochs 60 --save-seconds 0".split(" ");
    const model = (name: string) => readFileSync(join(folder, name, "model.safetensors"));
    execFileSync(process.execPath, command(folder, join(folder, "undisturbed"), ...epochs), { stdio: "ignore" });

    const to = join(folder, "to");
    const state = join(`${to}.run`, "state");
    const child = spawn(process.execPath, command(folder, to, ...epochs), { stdio: "ignore" });
    while (child.exitCode === null && !existsSync(state)) await sleep(2);
    child.kill("SIGKILL");
    await once(child, "exit");
    t.ok(existsSync(state) && !existsSync(to), "it was in the middle");
    const kept = readFileSync(state);
    const blocks = 64; // of 512 bytes
    t.ok(kept.length > 512 * blocks);
    const limited = ["-c", `ulimit -f ${blocks} && exec "$@"`, "sh", process.execPath];
    const full = spawnSync("sh", [...limited, ...command(folder, to, ...epochs)], { encoding: "utf8" });
    t.equal(full.status, 1, full.stderr);
    t.match(full.stderr, /state\.partial: cannot be written: File too large/);
    t.strictSame(readFileSync(state), kept);
    execFileSync(process.execPath, command(folder, to, ...epochs), { stdio: "ignore" });
    t.ok(model("to").equals(model("undisturbed")), "the same bits");
  },
);

t.test("a log that is gone, in part or as a whole, costs what it would have told, and nothing else", async (t) => {
  const folder = t.testdir({});
  const options = { ...begin(folder), epochs: 3, heldOut: 0.1 };
  const whole = await pretrain({ ...options, to: join(folder, "whole") });
  const runs = [
    { name: "early", stop: 3 },
    { name: "late", stop: whole.steps },
  ];
  for (const { name, stop } of runs) {
    const to = join(folder, name);
    const onProgress = ({ step }: { step: number }) => {
      if (step === stop) throw new Error("mine");
    };
    await t.rejects(pretrain({ ...options, to, onProgress }), { message: "mine" });
    rmSync(join(`${to}.run`, "log.jsonl"));
    const { loss, heldOutLoss, seconds, steps } = await pretrain({ ...options, to });
    t.equal(steps, whole.steps);
    const told = name === "early" ? [whole.loss, whole.heldOutLoss] : [undefined, undefined];
    t.same([loss, heldOutLoss], told);
    t.ok(name === "early" ? seconds > 0 : seconds === 0);
    t.ok(existsSync(join(to, "model.safetensors")));
  }
});

t.test("a run that is cancelled while it is opened can be opened again", async (t) => {
  const folder = t.testdir({});
  const options = { ...begin(folder), to: join(folder, "to") };
  const stop = new AbortController();
  const { open } = Training;
  t.teardown(() => Object.assign(Training, { open }));
  // The signal comes while the native side is at work.
  Training.open = (native) => {
    const opening = open.call(Training, native);
    process.nextTick(() => stop.abort());
    return opening;
  };
  await t.rejects(pretrain({ ...options, signal: stop.signal }), {
    code: "ABORTED",
    message: /aborted while it was opened; .*to\.run has it, and the same call goes on$/,
  });
  Training.open = open;
  t.ok((await pretrain(options)).steps > 0);
});

t.test("SIGTERM saves; where nobody reads how it goes on, it goes on", async (t) => {
  const folder = t.testdir({});
  begin(folder);
  const to = join(folder, "to");
  const child = spawn(
    process.execPath,
    command(folder, to, ..."--epochs 5000 --held-out 0.1 --evaluate-every 2".split(" ")),
  );
  child.stderr.once("data", () => child.stderr.destroy());
  const closed = once(child, "exit");
  const log = join(`${to}.run`, "log.jsonl");
  const steps = () => (existsSync(log) ? readFileSync(log, "utf8").split("\n").length : 0);
  while (child.exitCode === null && steps() < 20) await sleep(10);
  child.kill("SIGTERM");
  await sleep(2); // as npx does, which sends it on
  child.kill("SIGTERM");
  t.same(await closed, [143, null]);
  t.ok(existsSync(join(`${to}.run`, "state")) && !existsSync(to));
});
