// What adapters tell of an answer beyond what frameworks have fields for.
import type { GenerateResult } from "../types.js";

/** JSON: nothing undefined, no bigint. What `usage` says of tokens, frameworks have fields for. */
export function metadataOf({ usage, seed, stopMatched, choices, tokens }: GenerateResult): Record<string, never> {
  const { promptTokens: _, cachedTokens: __, completionTokens: ___, ...effort } = usage;
  const told = { ...effort, seed: typeof seed === "bigint" ? String(seed) : seed, stopMatched, choices, tokens };
  return JSON.parse(JSON.stringify(told));
}

/** Without the name of the draft: where frameworks make schemas of draft 7, draft 2020-12 means the same. */
export function schemaOf(schema: object): object {
  const { $schema: _, ...rest } = schema as { $schema?: unknown };
  return rest;
}
