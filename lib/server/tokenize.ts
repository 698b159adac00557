// POST /tokenize and /detokenize, as vLLM has them.
import { z } from "zod";
import type { ServedModel } from "./models.js";
import { optional } from "./openai-fields.js";
import { messagesField, messagesOf, toolFields, toolsOf } from "./openai-messages.js";
import { TokenTexts } from "./openai-results.js";
import { ApiError, badField, parseBody } from "./problem.js";

const text = z.string();
const flag = optional(z.boolean());

export const tokenizeSchema = z.object({
  model: optional(text),
  prompt: optional(text).describe("either this or messages"),
  messages: optional(messagesField),
  tools: toolFields.tools,
  add_generation_prompt: flag,
  continue_final_message: flag,
  add_special_tokens: flag.describe("false: names of special tokens in a prompt are text"),
  chat_template_kwargs: optional(z.record(z.string(), z.unknown())),
  return_token_strs: flag,
});

export const detokenizeSchema = z.object({
  model: optional(text),
  tokens: z
    .custom<number[]>((value) => Array.isArray(value), { error: "give a list of token ids" })
    .meta({ description: "token ids" }),
});

type Find = (model: string | null | undefined) => ServedModel;

export async function tokenize(raw: unknown, find: Find): Promise<object> {
  const body = parseBody(tokenizeSchema, raw);
  const { engine } = find(body.model);
  const { prompt, messages } = body;
  if ((typeof prompt === "string") === Array.isArray(messages))
    throw badField("prompt", "give either prompt or messages");
  const ids =
    typeof prompt === "string"
      ? await engine.tokenize(prompt, { parseSpecial: body.add_special_tokens ?? true })
      : await engine.tokenize(messagesOf(messages ?? []), {
          ...(body.tools && { tools: toolsOf(body).tools ?? [] }),
          ...(body.chat_template_kwargs && { templateOptions: body.chat_template_kwargs }),
          ...(typeof body.add_generation_prompt === "boolean" && { addGenerationPrompt: body.add_generation_prompt }),
          ...(body.continue_final_message && { continueFinalMessage: true }),
        });
  const tokens = [...ids];
  const texts = new TokenTexts(engine);
  return {
    count: tokens.length,
    max_model_len: engine.model.contextLength,
    tokens,
    token_strs: body.return_token_strs ? tokens.map((id) => texts.of(id)) : null,
  };
}

/** Ids at most: it is done on this thread. */
const mostIds = 2 ** 18;

export async function detokenize(raw: unknown, find: Find): Promise<object> {
  const { model, tokens } = parseBody(detokenizeSchema, raw);
  if (tokens.length > mostIds) {
    throw new ApiError(413, `tokens: give at most ${mostIds}`, { param: "tokens", code: "request_too_large" });
  }
  return { prompt: find(model).engine.detokenize(tokens) };
}
