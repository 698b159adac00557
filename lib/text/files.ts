// The files of a checkpoint that texts go through: tokenizer, special tokens, chat template.
import { join } from "node:path";
import { readJson } from "../checkpoint.js";
import { SdarError } from "../errors.js";
import { ChatTemplate } from "./template.js";
import { Tokenizer } from "./tokenizer.js";

interface TokenizerConfig {
  /** tokenizer_config.json */
  config: Record<string, unknown>;
  /** special_tokens_map.json */
  map: Record<string, unknown>;
  /** of both, config's before map's */
  names: Record<string, unknown>;
}

export function readTokenizerConfig(folder: string): TokenizerConfig {
  const map = readJson(join(folder, "special_tokens_map.json"), "TOKENIZER_INVALID") ?? {};
  const config = readJson(join(folder, "tokenizer_config.json"), "TOKENIZER_INVALID") ?? {};
  return { config, map, names: { ...map, ...config } };
}

/** `at` is told which file comes next. Throws TOKENIZER_MISSING, TOKENIZER_INVALID, UNSUPPORTED_TOKENIZER. */
export function loadText(folder: string, at: (file: "config" | "tokenizer" | "template") => void = () => {}) {
  at("config");
  const { config, map, names } = readTokenizerConfig(folder);
  at("tokenizer");
  const tokenizer = Tokenizer.load(folder, names);
  if (!tokenizer) throw new SdarError("TOKENIZER_MISSING", `${folder} has no tokenizer.json`);
  at("template");
  return { tokenizer, template: ChatTemplate.load(folder, config), config, map };
}
