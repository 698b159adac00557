// A Qwen3 checkpoint as write_gguf takes it: its shape, and all weights as f32 in the order of the GGUF file.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** The tensors of a safetensors file by name, as f32. */
function readTensors(file) {
  const bytes = readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString("utf8", 8, start));
  return (name) => {
    const entry = header[name];
    if (!entry) throw new Error(`${file} has no tensor ${name}`);
    const [from, to] = entry.data_offsets.map((offset) => start + offset);
    return toF32(bytes.subarray(from, to), entry.dtype);
  };
}

function toF32(bytes, dtype) {
  if (dtype === "F32") return new Float32Array(Uint8Array.from(bytes).buffer);
  if (dtype !== "BF16") throw new Error(`tensors of ${dtype} are not converted; only F32 and BF16`);
  const values = new Uint32Array(bytes.length / 2);
  for (let i = 0; i < values.length; i++) values[i] = bytes.readUInt16LE(2 * i) << 16;
  return new Float32Array(values.buffer);
}

/** Writes the weights of a checkpoint in one safetensors file to `out`; returns its shape as in shapes.mjs. */
export function exportCheckpoint(folder, out) {
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
  const shape = {
    hidden: config.hidden_size,
    intermediate: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads: config.num_attention_heads,
    kv_heads: config.num_key_value_heads,
    head_dim: config.head_dim,
    vocab: config.vocab_size,
    tied: config.tie_word_embeddings === true,
    rope_theta: config.rope_theta,
  };
  const tensor = readTensors(join(folder, "model.safetensors"));
  const layer = (i) =>
    [
      "input_layernorm",
      ...["q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "o_proj"].map((name) => `self_attn.${name}`),
      "post_attention_layernorm",
      ...["gate_proj", "up_proj", "down_proj"].map((name) => `mlp.${name}`),
    ].map((name) => `model.layers.${i}.${name}.weight`);
  const names = [
    "model.embed_tokens.weight",
    ...(shape.tied ? [] : ["lm_head.weight"]),
    "model.norm.weight",
    ...Array.from({ length: shape.layers }, (_, i) => layer(i)).flat(),
  ];
  writeFileSync(out, Buffer.concat(names.map((name) => Buffer.from(tensor(name).buffer))));
  return shape;
}
