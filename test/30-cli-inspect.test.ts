import { cpSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { kvFormats, weightFormats } from "../lib/binding.js";
import { findCheckpoint, shippedModelPath } from "../lib/checkpoint.js";
import { Engine } from "../lib/engine.js";
import { inspectCheckpoint } from "../lib/inspect.js";
import { sdar } from "./sdar.js";

const golden = ["tiny-dense", "tiny-moe", "tiny-tied", "tiny-ar", "tiny-f16-sharded"];

t.test("sizes are those of the engine", async (t) => {
  for (const name of ["sdar-nano", ...golden.map((name) => `test/golden/${name}`)]) {
    const { weightBytes, kvBytesPerToken, parameters, shape, decoding } = inspectCheckpoint(findCheckpoint(name));
    for (const weights of weightFormats) {
      const dtype = kvFormats[weightFormats.indexOf(weights) % kvFormats.length];
      await using engine = await Engine.load(name, { device: "cpu", weights, kvCache: { dtype, tokens: 4096 } });
      const { model } = engine;
      t.match(
        { decoding, parameters, weights: weightBytes[weights], kv: kvBytesPerToken[dtype as "f32"] },
        { decoding: model.decoding, parameters: model.parameters, weights: model.weightBytes },
        `${name} as ${weights}`,
      );
      t.equal(kvBytesPerToken[dtype as "f32"], model.kv.bytes / model.kv.tokens, `${name}: cache as ${dtype}`);
      t.match({ c: shape.context, v: shape.vocabulary }, { c: model.contextLength, v: model.vocabSize });
    }
  }
});

t.test("what fits is what memory leaves beside the weights", async (t) => {
  const { fits, memory, kvBytesPerToken, shape } = inspectCheckpoint(shippedModelPath());
  t.ok(memory.available > 0 && memory.available <= memory.limit);
  for (const { weightBytes, kv, tokens, requests } of fits) {
    t.ok(weightBytes + tokens * kvBytesPerToken[kv] <= memory.available);
    t.ok(weightBytes + (tokens + 1) * kvBytesPerToken[kv] > memory.available);
    t.equal(requests, Math.floor(tokens / shape.context));
  }
});

t.test("tokenizer, special tokens, template", async (t) => {
  const { tokenizer, template, tensors } = inspectCheckpoint(shippedModelPath());
  await using engine = await Engine.load("sdar-nano");
  t.equal(tokenizer?.special.mask_token?.id, engine.model.maskTokenId);
  t.same([...(tokenizer?.endTokenIds ?? [])].sort(), [...engine.model.endTokenIds].sort());
  const json = JSON.parse(readFileSync(join(shippedModelPath(), "tokenizer.json"), "utf8"));
  t.match(tokenizer, {
    type: "BPE",
    vocabulary: Object.keys(json.model.vocab).length,
    added: json.added_tokens.length,
  });
  t.match(template, { characters: Number, tools: Boolean, problem: undefined });
  t.match(inspectCheckpoint("test/golden/tiny-dense"), { tokenizer: undefined, template: undefined });

  const { status, stdout } = await sdar(["inspect"]);
  t.equal(status, 0);
  t.match(stdout, /type +sdar, denoises blocks\n/);
  t.match(stdout, new RegExp(`Tensors: ${tensors.length} in 1 file`));
  t.match(stdout, /model\.layers\.\*\.self_attn\.q_proj\.weight +BF16 \[\d+, \d+\] +x \d+ /);
});

t.test("broken files are refused by name", async (t) => {
  const fresh = () => {
    const folder = t.testdir({});
    cpSync("test/golden/tiny-dense", folder, { recursive: true });
    return folder;
  };
  const refused = (change: (folder: string) => void, code: string, message: RegExp) => {
    const folder = fresh();
    change(folder);
    t.throws(() => inspectCheckpoint(folder), { code, message }, String(message));
  };
  const file = (folder: string) => join(folder, "model.safetensors");
  const withHeader = (change: (header: Record<string, Record<string, unknown>>) => void) => (folder: string) => {
    const bytes = readFileSync(file(folder));
    const length = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + length));
    change(header);
    const text = Buffer.from(JSON.stringify(header));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(file(folder), Buffer.concat([size, text, bytes.subarray(8 + length)]));
  };
  const norm = "model.norm.weight";
  const truncated = /model\.safetensors: tensor .* lies at bytes .*, which has only/;
  refused((folder) => truncateSync(file(folder), 100_000), "CHECKPOINT_TRUNCATED", truncated);
  refused((folder) => truncateSync(file(folder), 20), "CHECKPOINT_TRUNCATED", /ends inside its header/);
  refused((folder) => truncateSync(file(folder), 3), "CHECKPOINT_TRUNCATED", /has 3 bytes/);
  refused((folder) => writeFileSync(file(folder), "x".repeat(99)), "CHECKPOINT_INVALID", /is this a safetensors file/);
  refused((folder) => rmSync(file(folder)), "FILE_NOT_FOUND", /has no model\.safetensors and no/);
  refused(
    withHeader((all) => delete all[norm]),
    "CHECKPOINT_INVALID",
    /leaves a hole|no tensor covers/,
  );
  const shape = withHeader((all) => Object.assign(all[norm] ?? {}, { shape: [1, 96] }));
  refused(shape, "CHECKPOINT_INVALID", /model\.norm\.weight has shape \[1, 96\]; config\.json means \[96\]/);
  const wide = withHeader((all) => Object.assign(all[norm] ?? {}, { shape: [97] }));
  refused(wide, "CHECKPOINT_INVALID", /model\.norm\.weight: data_offsets span 384 bytes; shape and dtype mean 388/);
  const other = withHeader((all) => Object.assign(all[norm] ?? {}, { dtype: "I32" }));
  refused(other, "CHECKPOINT_INVALID", /model\.norm\.weight has dtype I32/);
  const renamed = withHeader((all) => {
    all["model.other.weight"] = all[norm] ?? {};
    delete all[norm];
  });
  refused(renamed, "CHECKPOINT_INVALID", /tensor model\.norm\.weight is missing/);
  const config = (change: object) => (folder: string) => {
    const path = join(folder, "config.json");
    writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...change }));
  };
  refused(config({ hidden_size: "96" }), "CONFIG_INVALID", /config\.json: hidden_size is "96"; allowed: an integer/);
  refused(config({ model_type: "llama" }), "UNSUPPORTED_MODEL", /model_type is "llama"; allowed: sdar/);
  const shards = (weight_map: object) => (folder: string) => {
    rmSync(file(folder));
    writeFileSync(`${file(folder)}.index.json`, JSON.stringify({ weight_map }));
  };
  refused(shards({ a: "none.safetensors" }), "FILE_NOT_FOUND", /names the shard "none\.safetensors", which is missing/);
  refused(shards({ a: "../x.safetensors" }), "CHECKPOINT_INVALID", /expected the name of a file in the same folder/);
  const folder = fresh();
  truncateSync(file(folder), 100_000);
  t.match(await sdar(["inspect", folder]), { status: 1, stdout: "", stderr: /^sdar: .*model\.safetensors: tensor / });
});
