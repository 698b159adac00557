// What a checkpoint is, from its small files and the headers of its weights, and what of it fits into this machine.
import { join } from "node:path";
import type { KvFormat, WeightFormat } from "./binding.js";
import { readJson } from "./checkpoint.js";
import { SdarError } from "./errors.js";
import {
  kvBytesPerToken,
  type ModelShape,
  machineMemory,
  plannedWeights,
  readShape,
  weightBytes,
} from "./footprint.js";
import { readTensors, type StoredFile, type StoredTensor } from "./safetensors.js";
import { readTokenizerConfig } from "./text/files.js";
import { ChatTemplate } from "./text/template.js";
import { contentOf, Tokenizer } from "./text/tokenizer.js";

export interface Fit {
  weights: WeightFormat;
  weightBytes: number;
  /** of the cache, as the engine chooses it for these weights */
  kv: KvFormat;
  /** positions for which there is room beside the weights */
  tokens: number;
  /** requests of a whole context at once */
  requests: number;
}

export interface Inspection {
  folder: string;
  shape: ModelShape;
  decoding: "block_diffusion" | "autoregressive";
  parameters: number;
  files: StoredFile[];
  tensors: StoredTensor[];
  /** names of tensors that are not part of the model, and are passed over */
  passedOver: string[];
  weightBytes: Record<WeightFormat, number>;
  kvBytesPerToken: Record<KvFormat, number>;
  memory: { limit: number; available: number };
  fits: Fit[];
  tokenizer: TokenizerFacts | undefined;
  template: TemplateFacts | undefined;
}

interface TokenizerFacts {
  type: string;
  /** entries of the vocabulary, and added tokens */
  vocabulary: number;
  added: number;
  /** by their part, such as eos_token: name and id */
  special: Record<string, { name: string; id: number | undefined }>;
  endTokenIds: number[];
}

interface TemplateFacts {
  characters: number;
  tools: boolean;
  /** why conversations cannot be written with it */
  problem?: string;
}

/** Throws FILE_NOT_FOUND, FILE_UNREADABLE, CONFIG_INVALID, UNSUPPORTED_MODEL, CHECKPOINT_INVALID, CHECKPOINT_TRUNCATED, TOKENIZER_INVALID, UNSUPPORTED_TOKENIZER. */
export function inspectCheckpoint(folder: string): Inspection {
  const shape = readShape(folder);
  const { files, tensors } = readTensors(folder);
  const { parameters, passedOver } = checkTensors(folder, shape, tensors);
  const bytes = weightBytes(shape);
  const perToken = kvBytesPerToken(shape);
  const memory = machineMemory();
  const fits = Object.entries(bytes).map(([format, size]): Fit => {
    const weights = format as WeightFormat;
    const kv = weights === "f32" ? "f32" : "bf16";
    const tokens = Math.max(0, Math.floor((memory.available - size) / perToken[kv]));
    return { weights, weightBytes: size, kv, tokens, requests: Math.floor(tokens / shape.context) };
  });
  return {
    folder,
    shape,
    decoding: shape.modelType.startsWith("sdar") ? "block_diffusion" : "autoregressive",
    parameters,
    files,
    tensors,
    passedOver,
    weightBytes: bytes,
    kvBytesPerToken: perToken,
    memory,
    fits,
    ...textFacts(folder, shape),
  };
}

/** That all tensors are there in their shapes. */
function checkTensors(folder: string, shape: ModelShape, tensors: readonly StoredTensor[]) {
  const stored = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const missing: string[] = [];
  let parameters = 0;
  for (const { kind, parts } of plannedWeights(shape)) {
    for (const { name, rows, columns } of parts) {
      const tensor = stored.get(name);
      stored.delete(name);
      parameters += rows * columns;
      const wanted = kind === "vector" ? [columns] : [rows, columns];
      if (!tensor) missing.push(name);
      else if (tensor.shape.join() !== wanted.join()) {
        const what = `has shape [${tensor.shape.join(", ")}]; config.json means [${wanted.join(", ")}]`;
        throw new SdarError("CHECKPOINT_INVALID", `${join(folder, tensor.file)}: tensor ${name} ${what}`);
      } else if (!["F32", "F16", "BF16"].includes(tensor.dtype)) {
        const what = `has dtype ${tensor.dtype}; allowed: F32, F16, BF16`;
        throw new SdarError("CHECKPOINT_INVALID", `${join(folder, tensor.file)}: tensor ${name} ${what}`);
      }
    }
  }
  if (missing.length > 0) {
    const more = missing.length > 1 ? ` and ${missing.length - 1} more are` : " is";
    throw new SdarError("CHECKPOINT_INVALID", `${folder}: tensor ${missing[0]}${more} missing`);
  }
  return { parameters, passedOver: [...stored.keys()] };
}

function textFacts(folder: string, { maskTokenId }: ModelShape): Pick<Inspection, "tokenizer" | "template"> {
  const { config, names } = readTokenizerConfig(folder);
  const tokenizer = Tokenizer.load(folder, names);
  const template = ChatTemplate.load(folder, config);
  return {
    tokenizer: tokenizer && tokenizerFacts(folder, tokenizer, names, maskTokenId),
    template: template && templateFacts(template),
  };
}

function tokenizerFacts(
  folder: string,
  tokenizer: Tokenizer,
  names: Record<string, unknown>,
  maskTokenId: number | undefined,
): TokenizerFacts {
  const definition = readJson(join(folder, "tokenizer.json"), "TOKENIZER_INVALID", 2 ** 25);
  const { type, vocab } = (definition?.model ?? {}) as { type?: unknown; vocab?: object };
  const added = [...tokenizer.added.control, ...tokenizer.added.text];
  const special: TokenizerFacts["special"] = {};
  for (const [part, token] of Object.entries(names)) {
    const name = part.endsWith("_token") ? contentOf(token) : undefined;
    if (name !== undefined) special[part] = { name, id: added.find(({ content }) => content === name)?.id };
  }
  const mask = added.find(({ id }) => id === maskTokenId);
  if (mask && !special.mask_token) special.mask_token = { name: mask.content, id: mask.id };
  const configs = ["generation_config.json", "config.json"].map((name) =>
    readJson(join(folder, name), "CONFIG_INVALID"),
  );
  const ends = configs.map((config) => config?.eos_token_id).find((ids) => ids !== undefined && ids !== null);
  const endTokenIds = [ends ?? []].flat().filter((id): id is number => Number.isSafeInteger(id));
  const vocabulary = Object.keys(vocab ?? {}).length;
  return { type: String(type ?? "BPE"), vocabulary, added: added.length, special, endTokenIds };
}

function templateFacts(template: ChatTemplate): TemplateFacts {
  const facts = { characters: template.length, tools: template.takesTools };
  try {
    template.render([{ role: "user", content: "?" }]);
    return facts;
  } catch (error) {
    return { ...facts, problem: (error as Error).message };
  }
}
