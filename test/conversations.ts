// What tests of conversations share: templates, folders with them, and engines.
import { readFileSync } from "node:fs";
import type { Test } from "tap";
import type { Message, Tool } from "../lib/index.js";

export const sdarTemplate = readFileSync(new URL("templates/sdar-8b-chat.jinja", import.meta.url), "utf8");
/** As those of Qwen3's thinking models: the request for an answer opens the reasoning. */
export const thinkingTemplate = sdarTemplate.replace(
  /<think>\\n\\n<\/think>\\n\\n' \}\}\s*\{%- endif %\}/,
  "x' }}{%- endif %}{{- '<think>\\n' }}",
);
export const room = { contextLength: 8192, kv: { dtype: "bf16" as const, pages: 64, tokens: 8192, bytes: 4096 } };

/** The shipped model's tokenizer, whose added tokens are others. */
export const folder = (t: Test, chat_template: string) =>
  t.testdir({
    "tokenizer.json": readFileSync(new URL("../models/sdar-nano/tokenizer.json", import.meta.url), "utf8"),
    "tokenizer_config.json": JSON.stringify({ chat_template }),
  });

export const now: Tool = { name: "now", parameters: { type: "object", properties: {} } };
export const asked: Message = { role: "user", content: "Is it warm in Zürich?" };
