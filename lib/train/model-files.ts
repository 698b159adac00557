// What a finished model has besides its tensors: config.json, the tokenizer's files with the mask token, and the rest.
import { copyFileSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readJson } from "../checkpoint.js";
import { SdarError } from "../errors.js";
import { readTokenizerConfig } from "../text/files.js";
import { contentOf } from "../text/tokenizer.js";
import type { Settings } from "./options.js";
import { writing } from "./paths.js";

type Json = Record<string, unknown>;

/** What of a checkpoint's folder goes along: all small files but those that are made anew, and other tensors or their like. */
const left =
  /^(config\.json|README\.md|\..*|model[.-].*|.*\.(safetensors|bin|pt|pth|gguf|h5|msgpack|onnx)(\.index\.json)?)$/;
const tokenizerFiles =
  /^(tokenizer.*\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|chat_template.*|generation_config\.json)$/;
const maskName = "<|MASK|>";
const maxTokenizerBytes = 2 ** 25;
/** Of a file that goes along: more are other tensors. */
const maxCopiedBytes = 2 ** 26;

/** What training needs to know of the model that it makes. */
export interface ModelFacts {
  vocabSize: number;
  context: number;
  /** empty where autoregressive */
  blocks: number[];
  maskId: number;
  /** a mixture of experts */
  sparse: boolean;
  /** -1: none */
  padId: number;
  endIds: number[];
}

/** Writes them into `folder`, which is made. In the thread that prepares a run. Throws what is wrong with the source. */
export function makeModelFiles(source: string, settings: Settings, folder: string): ModelFacts {
  writing(folder, () => mkdirSync(folder, { recursive: true }));
  return settings.kind === "pretrain" ? newModel(source, settings, folder) : adaptedModel(source, settings, folder);
}

function adaptedModel(source: string, settings: Settings, folder: string): ModelFacts {
  const file = join(source, "config.json");
  const config = readJson(file, "CONFIG_INVALID");
  if (!config) throw new SdarError("FILE_NOT_FOUND", `${source} has no config.json`);
  const type = String(config.model_type);
  const blockwise = type.startsWith("sdar");
  if (!/^(sdar|qwen3)(_moe)?$/.test(type))
    throw new SdarError(
      "UNSUPPORTED_MODEL",
      `${file}: model_type is ${type}; allowed: qwen3, qwen3_moe, sdar, sdar_moe`,
    );
  if (settings.recipe === "autoregressive" && blockwise)
    throw new SdarError("INVALID_OPTION", `recipe: "autoregressive" is not for ${type}, which denoises blocks`, {
      option: "recipe",
    });
  const names = new Names(source, config);
  copyFiles(source, folder, (name) => !left.test(name));
  const vocabSize = sizeOf(config, "vocab_size", file);
  const dtype = settings.dtype === "f32" ? "float32" : "bfloat16";
  const common = { ...config, ...("dtype" in config ? { dtype } : { torch_dtype: dtype }) };
  const facts = {
    sparse: type.endsWith("_moe"),
    vocabSize,
    context: sizeOf(config, "max_position_embeddings", file),
    padId: names.pad,
    endIds: names.ends(join(source, "generation_config.json")),
  };
  if (settings.recipe === "autoregressive") {
    writeJson(join(folder, "config.json"), common);
    return { ...facts, blocks: [], maskId: -1 };
  }
  const given = blockwise && Number.isSafeInteger(config.block_size) ? Number(config.block_size) : 4;
  const blocks = settings.blocks.length > 0 ? settings.blocks : [given];
  const maskId = addMask(source, folder, names, vocabSize, settings.maskToken, config);
  const moe = facts.sparse;
  const architectures = [moe ? "SDARMoeForCausalLM" : "SDARForCausalLM"];
  const own = { architectures, model_type: moe ? "sdar_moe" : "sdar", block_size: blocks[0], mask_token_id: maskId };
  writeJson(join(folder, "config.json"), { ...common, ...own });
  return { ...facts, blocks, maskId };
}

function sizeOf(config: Json, name: string, file: string): number {
  const value = config[name];
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  throw new SdarError("CONFIG_INVALID", `${file}: ${name} is ${JSON.stringify(value)}; allowed: an integer above 0`);
}

function newModel(source: string, settings: Settings, folder: string): ModelFacts {
  const shape = settings.shape as NonNullable<Settings["shape"]>;
  const names = new Names(source, {});
  const least = names.size;
  // Adaptation puts the mask where no token is yet.
  const vocabSize = settings.vocabSize ?? (names.mask === undefined ? Math.ceil((least + 1) / 8) * 8 : least);
  if (vocabSize < least)
    throw new SdarError(
      "INVALID_OPTION",
      `vocabSize: ${vocabSize} is not allowed; give at least ${least}, for so many ids has ${source}/tokenizer.json`,
      {
        option: "vocabSize",
        value: vocabSize,
      },
    );
  copyFiles(source, folder, (name) => tokenizerFiles.test(name));
  const generation = join(source, "generation_config.json");
  const endIds = names.ends(generation);
  if (!readJson(generation, "CONFIG_INVALID"))
    writeJson(join(folder, "generation_config.json"), {
      eos_token_id: endIds,
      ...(names.pad >= 0 && { pad_token_id: names.pad }),
    });
  writeJson(join(folder, "config.json"), {
    architectures: ["Qwen3ForCausalLM"],
    model_type: "qwen3",
    attention_bias: false,
    hidden_act: "silu",
    ...(endIds.length > 0 && { eos_token_id: endIds[0] }),
    max_position_embeddings: shape.context,
    torch_dtype: settings.dtype === "f32" ? "float32" : "bfloat16",
    vocab_size: vocabSize,
    hidden_size: shape.hidden,
    intermediate_size: shape.intermediate,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    num_key_value_heads: shape.kvHeads,
    head_dim: shape.headDim,
    rms_norm_eps: 1e-6,
    rope_theta: shape.ropeTheta,
    tie_word_embeddings: shape.tied,
  });
  return { vocabSize, context: shape.context, blocks: [], maskId: -1, sparse: false, padId: names.pad, endIds };
}

/** The tokens of a tokenizer by name, and those that have a part. */
class Names {
  readonly tokenizer: Json;
  readonly config: Json;
  readonly #model: Json;
  readonly #ids = new Map<string, number>();

  constructor(source: string, model: Json) {
    const tokenizer = readJson(join(source, "tokenizer.json"), "TOKENIZER_INVALID", maxTokenizerBytes);
    if (!tokenizer) throw new SdarError("TOKENIZER_MISSING", `${source} has no tokenizer.json`);
    this.tokenizer = tokenizer;
    this.#model = model;
    this.config = readTokenizerConfig(source).names;
    const vocab = (tokenizer.model as { vocab?: Json } | undefined)?.vocab ?? {};
    for (const [name, id] of Object.entries(vocab)) this.#ids.set(name, Number(id));
    const added = tokenizer.added_tokens ?? [];
    if (!Array.isArray(added) || added.some((token) => typeof token !== "object" || token === null))
      throw new SdarError("TOKENIZER_INVALID", `${source}/tokenizer.json: added_tokens must be a list of objects`);
    for (const token of added as { content?: unknown; id?: unknown }[])
      this.#ids.set(String(token.content), Number(token.id));
  }

  idOf(name: string): number | undefined {
    return this.#ids.get(name);
  }
  /** One more than the highest id. */
  get size(): number {
    let most = -1;
    for (const id of this.#ids.values()) most = Math.max(most, id);
    return most + 1;
  }
  get mask(): string | undefined {
    const named = contentOf(this.config.mask_token);
    if (named !== undefined && this.#ids.has(named)) return named;
    return this.#ids.has(maskName) ? maskName : undefined;
  }
  /** The first id without a token, above all others if there is room. */
  free(vocabSize: number): number | undefined {
    if (this.size < vocabSize) return this.size;
    const used = new Set(this.#ids.values());
    for (let id = 0; id < vocabSize; id++) if (!used.has(id)) return id;
    return undefined;
  }
  get pad(): number {
    return this.#special("pad_token") ?? this.#special("eos_token") ?? -1;
  }
  /** The tokenizer's end token first where a chat ends with another: that is what ends a text. */
  ends(generationFile: string): number[] {
    const listed = [this.#model, readJson(generationFile, "CONFIG_INVALID") ?? {}].flatMap(
      (json) => json.eos_token_id ?? [],
    );
    const eos = this.#special("eos_token");
    const turn = this.#ids.get("<|im_end|>");
    const ids = [eos, ...(listed as unknown[]), turn].filter((id) => Number.isSafeInteger(id));
    return [...new Set(ids as number[])];
  }
  #special(name: string): number | undefined {
    const content = contentOf(this.config[name]);
    return content === undefined ? undefined : this.#ids.get(content);
  }
}

/** The mask's id, with its token in the tokenizer's files. Throws TOKENIZER_INVALID where there is no id for it. */
function addMask(
  source: string,
  folder: string,
  names: Names,
  vocabSize: number,
  wanted: string | undefined,
  config: Json,
): number {
  const name = wanted ?? names.mask ?? maskName;
  const known = names.idOf(name) ?? (wanted === undefined ? configured(config) : undefined);
  const id = known ?? names.free(vocabSize);
  if (id === undefined || id >= vocabSize)
    throw new SdarError(
      "TOKENIZER_INVALID",
      `${source}/tokenizer.json leaves none of the model's ${vocabSize} ids free for the mask; name a token that may be it ` +
        "(maskToken), or give the model more ids first (transformers: resize_token_embeddings)",
    );
  const token = { content: name, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  if (names.idOf(name) === undefined) {
    const added = [...((names.tokenizer.added_tokens ?? []) as unknown[]), { id, ...token }];
    writeJson(join(folder, "tokenizer.json"), { ...names.tokenizer, added_tokens: added });
    edit(folder, "added_tokens.json", (json) => ({ ...json, [name]: id }));
  }
  const tokenizerConfig = join(folder, "tokenizer_config.json");
  const json = readJson(tokenizerConfig, "TOKENIZER_INVALID") ?? {};
  if (contentOf(json.mask_token) !== name) {
    const decoder = { ...(json.added_tokens_decoder as Json | undefined), [String(id)]: token };
    writeJson(tokenizerConfig, { ...json, mask_token: name, added_tokens_decoder: decoder });
    edit(folder, "special_tokens_map.json", (map) => ({ ...map, mask_token: name }));
  }
  return id;
}

const configured = ({ mask_token_id: id }: Json) => (Number.isSafeInteger(id) ? Number(id) : undefined);

function edit(folder: string, name: string, change: (json: Json) => Json): void {
  const json = readJson(join(folder, name), "TOKENIZER_INVALID");
  if (json) writeJson(join(folder, name), change(json));
}

function copyFiles(source: string, folder: string, wanted: (name: string) => boolean): void {
  // In the hub's cache they are symbolic links.
  for (const name of readdirSync(source).filter(wanted)) {
    const kind = statSync(join(source, name), { throwIfNoEntry: false });
    if (!kind?.isFile() || kind.size > maxCopiedBytes) continue;
    const to = join(folder, name);
    writing(to, () => copyFileSync(join(source, name), to));
  }
}

function writeJson(file: string, json: Json): void {
  writing(file, () => writeFileSync(file, `${JSON.stringify(json, null, 2)}\n`));
}
