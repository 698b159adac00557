import { mkdirSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { findCheckpoint, readJson, shippedModelPath } from "../lib/checkpoint.js";

t.test("folders and the shipped model", async (t) => {
  const dir = t.testdir({ model: { "config.json": "{}" }, file: "" });
  t.equal(findCheckpoint("sdar-nano"), shippedModelPath());
  t.equal(findCheckpoint(join(dir, "model")), join(dir, "model"));
  t.throws(() => findCheckpoint(join(dir, "file")), { code: "MODEL_NOT_FOUND", message: /is a file; give the folder/ });
  t.throws(() => findCheckpoint(join(dir, "none")), { code: "MODEL_NOT_FOUND", message: /no folder .*none/ });
  t.throws(() => findCheckpoint("./some/where"), { code: "MODEL_NOT_FOUND" });
  t.throws(() => findCheckpoint("../no-such-folder"), { code: "MODEL_NOT_FOUND" });
});

t.test("hub ids are looked up in the local cache", async (t) => {
  const dir = t.testdir({});
  for (const name of ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"]) {
    const before = process.env[name];
    delete process.env[name];
    t.teardown(() => {
      if (before === undefined) delete process.env[name];
      else process.env[name] = before;
    });
  }
  const snapshot = (cache: string, model: string, revision: string, seconds: number) => {
    const folder = join(cache, `models--${model}`, "snapshots", revision);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "config.json"), "{}");
    utimesSync(folder, seconds, seconds);
    return folder;
  };
  process.env.HF_HOME = join(dir, "home");
  const hub = join(dir, "home", "hub");
  const missing = /no snapshot under .*models--org--model; nothing is downloaded .*sdar pull org\/model/;
  t.throws(() => findCheckpoint("org/model"), { code: "MODEL_NOT_FOUND", message: missing });

  const old = snapshot(hub, "org--model", "aaa", 1000);
  const fresh = snapshot(hub, "org--model", "bbb", 2000);
  t.equal(findCheckpoint("org/model"), fresh, "the newest one");
  mkdirSync(join(hub, "models--org--model", "refs"));
  writeFileSync(join(hub, "models--org--model", "refs", "main"), "aaa\n");
  t.equal(findCheckpoint("org/model"), old, "the one that main names");

  process.env.HF_HUB_CACHE = join(dir, "cache");
  const elsewhere = snapshot(join(dir, "cache"), "org--model", "ccc", 1000);
  t.equal(findCheckpoint("org/model"), elsewhere);
});

t.test("JSON files name themselves when they are broken", async (t) => {
  const dir = t.testdir({ "bad.json": "{", "list.json": "[]", "good.json": '{"a":1}', folder: {} });
  t.equal(readJson(join(dir, "none.json"), "CONFIG_INVALID"), undefined);
  t.same(readJson(join(dir, "good.json"), "CONFIG_INVALID"), { a: 1 });
  t.throws(() => readJson(join(dir, "bad.json"), "CONFIG_INVALID"), {
    code: "CONFIG_INVALID",
    message: /bad\.json is not valid JSON/,
  });
  t.throws(() => readJson(join(dir, "list.json"), "TOKENIZER_INVALID"), {
    code: "TOKENIZER_INVALID",
    message: /list\.json must hold/,
  });
  t.throws(() => readJson(join(dir, "folder"), "CONFIG_INVALID"), { code: "FILE_UNREADABLE" });
});
