import { cpSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { Engine, type LoadOptions } from "../lib/index.js";
import { eventually } from "./eventually.js";
import { goldenModel } from "./golden.js";

/** A copy of tiny-dense that `change` breaks. */
function broken(t: Test, change: (folder: string) => void): string {
  const folder = join(t.testdir({}), "model");
  mkdirSync(folder);
  cpSync(goldenModel("tiny-dense"), folder, { recursive: true });
  change(folder);
  return folder;
}

const editConfig = (edit: object) => (folder: string) => {
  const file = join(folder, "config.json");
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), ...edit }));
};

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

/** Rewrites the header of model.safetensors; the data stays. */
const editHeader = (edit: (header: Header) => void) => (folder: string) => {
  const file = join(folder, "model.safetensors");
  const bytes = readFileSync(file);
  const size = Number(bytes.readBigUInt64LE(0));
  const header: Header = JSON.parse(bytes.subarray(8, 8 + size).toString());
  edit(header);
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(file, Buffer.concat([length, text, bytes.subarray(8 + size)]));
};

/** Overwrites a whole f32 tensor. */
const fill = (tensor: string, value: number) => (folder: string) => {
  const file = join(folder, "model.safetensors");
  const bytes = readFileSync(file);
  const size = Number(bytes.readBigUInt64LE(0));
  const header: Header = JSON.parse(bytes.subarray(8, 8 + size).toString());
  const [begin, end] = header[tensor]?.data_offsets ?? [0, 0];
  for (let at = begin; at < end; at += 4) bytes.writeFloatLE(value, 8 + size + at);
  writeFileSync(file, bytes);
};

const norm = "model.norm.weight";
const q0 = "model.layers.0.self_attn.q_proj.weight";
const of = (header: Header, name: string) => header[name] as Header[string];

const faults: [what: string, change: (folder: string) => void, code: string, message: RegExp][] = [
  ["no config", (f) => rmSync(join(f, "config.json")), "FILE_NOT_FOUND", /config\.json/],
  ["no weights", (f) => rmSync(join(f, "model.safetensors")), "FILE_NOT_FOUND", /safetensors/],
  ["config is not JSON", (f) => writeFileSync(join(f, "config.json"), "{"), "CONFIG_INVALID", /config\.json/],
  ["an autoregressive model of another kind", editConfig({ model_type: "qwen2" }), "UNSUPPORTED_MODEL", /qwen2/],
  ["an unknown model", editConfig({ model_type: "gpt9" }), "UNSUPPORTED_MODEL", /gpt9/],
  ["config against tensors", editConfig({ hidden_size: 72 }), "CHECKPOINT_INVALID", /shape/],
  ["nonsense in config", editConfig({ num_hidden_layers: -3 }), "CONFIG_INVALID", /num_hidden_layers/],
  [
    "empty weights",
    (f) => writeFileSync(join(f, "model.safetensors"), ""),
    "CHECKPOINT_TRUNCATED",
    /model\.safetensors/,
  ],
  [
    "truncated weights",
    (f) => truncateSync(join(f, "model.safetensors"), 100_000),
    "CHECKPOINT_TRUNCATED",
    /model\.safetensors/,
  ],
  [
    "weights that are something else",
    (f) => writeFileSync(join(f, "model.safetensors"), "x".repeat(5000)),
    "CHECKPOINT_",
    /model\.safetensors/,
  ],
  ["a hole where a tensor was", editHeader((h) => delete h[norm]), "CHECKPOINT_INVALID", /hole before it/],
  [
    "an unknown dtype",
    editHeader((h) => {
      of(h, norm).dtype = "F4";
    }),
    "CHECKPOINT_INVALID",
    /F4/,
  ],
  [
    "offsets out of range",
    editHeader((h) => {
      of(h, norm).data_offsets = [1e12, 1e12 + 4];
    }),
    "CHECKPOINT_",
    /model\.norm\.weight/,
  ],
  [
    "offsets that run backwards",
    editHeader((h) => {
      of(h, norm).data_offsets.reverse();
    }),
    "CHECKPOINT_INVALID",
    /model\.norm\.weight/,
  ],
  [
    "overlapping tensors",
    editHeader((h) => {
      of(h, norm).data_offsets = of(h, q0)
        .data_offsets.slice(0, 1)
        .flatMap((b) => [b, b + 4 * (of(h, norm).shape[0] as number)]) as [number, number];
    }),
    "CHECKPOINT_INVALID",
    /overlap/,
  ],
  [
    "a shape that lies",
    editHeader((h) => {
      of(h, norm).shape = [2 ** 40];
    }),
    "CHECKPOINT_INVALID",
    /model\.norm\.weight/,
  ],
  ["NaN in a norm", fill(norm, Number.NaN), "CHECKPOINT_INVALID", /model\.norm\.weight/],
];

t.test("checkpoints with a fault are refused, and the error names it", async (t) => {
  for (const [what, change, code, message] of faults) {
    await t.test(what, async (t) => {
      const path = broken(t, change);
      const error = await Engine.load(path, { weights: "f32" }).then(
        (engine) => engine.dispose().then(() => undefined),
        (e) => e,
      );
      t.equal(error?.name, "SdarError");
      t.ok(error?.code?.startsWith(code), `${error?.code}: ${error?.message}`);
      t.match(error?.message, message);
    });
  }
});

t.test("what this machine cannot do is refused by name", async (t) => {
  const load = (options: LoadOptions) => Engine.load(goldenModel("tiny-dense"), options);
  await t.rejects(load({ isa: "sse9" }), { code: "INVALID_OPTION", message: /sse9/ });
  await t.rejects(load({ kvCache: { bytes: 1 } }), { code: "CACHE_TOO_SMALL" });
});

t.test("a request that can never fit the cache is refused, others run", async (t) => {
  const engine = await Engine.load(goldenModel("tiny-dense"), { kvCache: { tokens: 64 } });
  await t.rejects(engine.generate({ tokens: Array(60).fill(1), maxTokens: 30 }).result(), { code: "CACHE_TOO_SMALL" });
  const runs = Array.from({ length: 5 }, () =>
    engine.generate({ tokens: Array(40).fill(1), maxTokens: 8, ignoreEos: true }),
  );
  for (const run of runs) t.match(await run.result(), { finishReason: "length" });
  await engine.dispose();
});

t.test("logits that are not numbers end the request with NUMERIC_ERROR, not the engine", async (t) => {
  const path = broken(t, fill("model.layers.0.mlp.down_proj.weight", 3e38));
  const engine = await Engine.load(path, { weights: "f32" });
  const runs = [engine.generate({ tokens: [1, 2, 3] }), engine.generate({ tokens: [4] })];
  for (const run of runs) await t.rejects(run.result(), { code: "NUMERIC_ERROR" });
  await eventually(t, () => engine.stats(), { running: 0, finished: { error: 2 } });
  await engine.dispose();
});
