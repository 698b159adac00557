// What a model takes in memory on the CPU, from its shape: packed weights and the key/value cache. The layouts are those of
// native/backend/cpu/kernels/kernels.h and attention_pages.cc, the plan of weights that of native/model/checkpoint.cc.
import { readFileSync } from "node:fs";
import { freemem, totalmem } from "node:os";
import { join } from "node:path";
import { type KvFormat, kvFormats, type WeightFormat, weightFormats } from "./binding.js";
import { readJson } from "./checkpoint.js";
import { SdarError } from "./errors.js";

export interface ModelShape {
  modelType: string;
  layers: number;
  hidden: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  vocabulary: number;
  context: number;
  /** 0 where no layer is dense */
  intermediate: number;
  attentionBias: boolean;
  /** the lm_head is the embedding */
  tied: boolean;
  /** of the checkpoint, as it says: f32 else 16 bits */
  f32: boolean;
  blockSize: number | undefined;
  maskTokenId: number | undefined;
  experts?: { count: number; perToken: number; intermediate: number; layers: boolean[] };
}

/** A weight as it is packed, and the tensors it is made of, each `[rows, columns]` or, a vector, `[columns]`. */
interface Planned {
  kind: "vector" | "table" | "linear" | "gate_up";
  /** router: f32 whatever the format */
  fixed?: boolean;
  parts: { name: string; rows: number; columns: number }[];
}

const modelTypes = ["sdar", "sdar_moe", "qwen3", "qwen3_moe"];

/** The shape in config.json. Throws FILE_NOT_FOUND, FILE_UNREADABLE, CONFIG_INVALID or UNSUPPORTED_MODEL, naming the field. */
export function readShape(folder: string): ModelShape {
  const file = join(folder, "config.json");
  const config = readJson(file, "CONFIG_INVALID");
  if (!config) throw new SdarError("FILE_NOT_FOUND", `${folder}: has no config.json`);
  const { model_type: modelType } = config;
  if (typeof modelType !== "string" || !modelTypes.includes(modelType)) {
    const allowed = modelTypes.join(", ");
    throw new SdarError(
      "UNSUPPORTED_MODEL",
      `${file}: model_type is ${JSON.stringify(modelType)}; allowed: ${allowed}`,
    );
  }
  const size = (name: string, most: number, otherwise?: number): number => {
    const value = config[name] ?? otherwise;
    if (typeof value === "number" && Number.isInteger(value) && value > 0 && value <= most) return value;
    const what = JSON.stringify(value)?.slice(0, 60) ?? "missing";
    throw new SdarError("CONFIG_INVALID", `${file}: ${name} is ${what}; allowed: an integer from 1 to ${most}`);
  };
  const [layers, hidden, heads] = [
    size("num_hidden_layers", 1024),
    size("hidden_size", 2 ** 18),
    size("num_attention_heads", 1024),
  ];
  const blockwise = modelType.startsWith("sdar");
  const experts = modelType.endsWith("_moe") ? expertsOf(config, layers, size) : undefined;
  const dense = !experts || experts.layers.includes(false) || "intermediate_size" in config;
  return {
    modelType,
    layers,
    hidden,
    heads,
    kvHeads: size("num_key_value_heads", 1024, heads),
    headDim: size("head_dim", 1024, hidden / heads),
    vocabulary: size("vocab_size", 2 ** 22),
    context: size("max_position_embeddings", 2 ** 28),
    intermediate: dense ? size("intermediate_size", 2 ** 18) : 0,
    attentionBias: config.attention_bias === true,
    tied: config.tie_word_embeddings === true,
    f32: (config.torch_dtype ?? config.dtype) === "float32",
    blockSize: blockwise ? size("block_size", 64, 4) : undefined,
    maskTokenId: blockwise && Number.isSafeInteger(config.mask_token_id) ? Number(config.mask_token_id) : undefined,
    ...(experts && { experts }),
  };
}

function expertsOf(
  config: Record<string, unknown>,
  layers: number,
  size: (name: string, most: number, otherwise?: number) => number,
) {
  const count = size("num_experts", 1024);
  const step = size("decoder_sparse_step", 1024, 1);
  const dense = new Set(Array.isArray(config.mlp_only_layers) ? config.mlp_only_layers : []);
  return {
    count,
    perToken: size("num_experts_per_tok", count),
    intermediate: size("moe_intermediate_size", 2 ** 18),
    layers: Array.from({ length: layers }, (_, i) => (i + 1) % step === 0 && !dense.has(i)),
  };
}

/** All weights of the model. */
export function* plannedWeights(s: ModelShape): Generator<Planned> {
  const matrix = (kind: Planned["kind"], ...parts: [name: string, rows: number, columns: number][]): Planned => ({
    kind,
    parts: parts.map(([name, rows, columns]) => ({ name, rows, columns })),
  });
  const vector = (name: string, columns: number) => matrix("vector", [name, 1, columns]);
  const mlp = function* (at: string, width: number) {
    yield matrix("gate_up", [`${at}gate_proj.weight`, width, s.hidden], [`${at}up_proj.weight`, width, s.hidden]);
    yield matrix("linear", [`${at}down_proj.weight`, s.hidden, width]);
  };
  const [q, kv] = [s.heads * s.headDim, s.kvHeads * s.headDim];
  yield matrix("table", ["model.embed_tokens.weight", s.vocabulary, s.hidden]);
  for (let i = 0; i < s.layers; i++) {
    const at = `model.layers.${i}.`;
    const attention = `${at}self_attn.`;
    const projection = (name: string, rows: number): [string, number, number] => [
      `${attention}${name}_proj.weight`,
      rows,
      s.hidden,
    ];
    yield vector(`${at}input_layernorm.weight`, s.hidden);
    yield matrix("linear", projection("q", q), projection("k", kv), projection("v", kv));
    yield vector(`${attention}q_norm.weight`, s.headDim);
    yield vector(`${attention}k_norm.weight`, s.headDim);
    yield matrix("linear", [`${attention}o_proj.weight`, s.hidden, q]);
    if (s.attentionBias) {
      for (const [name, size] of Object.entries({ q, k: kv, v: kv, o: s.hidden }))
        yield vector(`${attention}${name}_proj.bias`, size);
    }
    yield vector(`${at}post_attention_layernorm.weight`, s.hidden);
    if (!s.experts?.layers[i]) {
      yield* mlp(`${at}mlp.`, s.intermediate);
      continue;
    }
    yield { ...matrix("linear", [`${at}mlp.gate.weight`, s.experts.count, s.hidden]), fixed: true };
    for (let e = 0; e < s.experts.count; e++) yield* mlp(`${at}mlp.experts.${e}.`, s.experts.intermediate);
  }
  yield vector("model.norm.weight", s.hidden);
  if (!s.tied) yield { ...matrix("linear", ["lm_head.weight", s.vocabulary, s.hidden]) };
}

const up = (n: number, multiple: number) => Math.ceil(n / multiple) * multiple;
/** Output columns of a panel. */
const panel = 32;

/** Bytes of one weight as the CPU reads it. */
function packedBytes({ kind, fixed, parts }: Planned, format: WeightFormat): number {
  const columns = parts[0]?.columns ?? 0;
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  if (kind === "vector") return up(4 * columns, 64);
  // Embedding and lm_head decide tokens directly: never below 8 bits.
  const outer = kind === "table" || parts[0]?.name === "lm_head.weight";
  const held = fixed ? "f32" : outer && format === "int4" ? "int8" : format;
  const quantised = held === "int8" || held === "int4";
  const padded = up(columns, quantised ? 64 : held === "bf16" ? 32 : 1);
  const bits = { f32: 32, bf16: 16, int8: 8, int4: 4 }[held];
  const scales = quantised ? Math.ceil(padded / (held === "int8" ? 128 : 64)) * panel * 4 : 0;
  const panels = kind === "gate_up" ? Math.ceil(rows / 2 / (panel / 2)) : Math.ceil(rows / panel);
  return up(panels * ((padded * panel * bits) / 8 + scales), 64);
}

/** Bytes of all weights by format. */
export function weightBytes(shape: ModelShape): Record<WeightFormat, number> {
  const total = Object.fromEntries(weightFormats.map((format) => [format, 0])) as Record<WeightFormat, number>;
  for (const weight of plannedWeights(shape)) {
    for (const format of weightFormats) total[format] += packedBytes(weight, format);
  }
  return total;
}

/** Bytes of keys and values of a position by format. */
export function kvBytesPerToken({ layers, kvHeads, headDim }: ModelShape): Record<KvFormat, number> {
  const bytes = { f32: 4, bf16: 2, int8: 1 };
  const of = (format: KvFormat) =>
    2 * layers * kvHeads * (up(headDim, 16) * bytes[format] + (format === "int8" ? 4 : 0));
  return Object.fromEntries(kvFormats.map((format) => [format, of(format)])) as Record<KvFormat, number>;
}

const cgroups = [
  ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"],
  ["/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"],
] as const;

/** Bytes that this process can ever have, and those that are free now: the machine's, within the cgroup's limit (v1, v2). */
export function machineMemory(): { limit: number; available: number } {
  const text = (file: string) => {
    try {
      return readFileSync(file, "latin1");
    } catch {
      return "";
    }
  };
  let limit = totalmem();
  const free = /^MemAvailable:\s+(\d+) kB$/m.exec(text("/proc/meminfo"))?.[1];
  let available = free ? 1024 * Number(free) : freemem();
  for (const [max, used] of cgroups) {
    const [most, taken] = [Number.parseInt(text(max), 10), Number.parseInt(text(used), 10)];
    if (!(most > 0)) continue;
    limit = Math.min(limit, most);
    if (taken >= 0) available = Math.min(available, Math.max(0, most - taken));
  }
  return { limit, available };
}
