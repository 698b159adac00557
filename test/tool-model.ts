// The shipped model with SDAR's published chat template, which has tools and reasoning; it has learnt neither.
import { copyFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import { shippedModelPath } from "../lib/checkpoint.js";
import { Engine, type LoadOptions } from "../lib/index.js";
import { sdarTemplate } from "./conversations.js";

export async function toolEngine(t: Test, options: LoadOptions = {}): Promise<Engine> {
  const folder = t.testdir({});
  for (const name of readdirSync(shippedModelPath())) copyFileSync(join(shippedModelPath(), name), join(folder, name));
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ chat_template: sdarTemplate }));
  const engine = await Engine.load(folder, { weightCache: false, ...options });
  t.teardown(() => engine.dispose());
  return engine;
}
