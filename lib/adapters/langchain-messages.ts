// Messages of LangChain as the engine has them, and answers as LangChain has them.
import { AIMessage, AIMessageChunk, type BaseMessage } from "@langchain/core/messages";
import { invalidOption } from "../errors.js";
import type { Chunk, GenerateResult, Message, MessageToolCall } from "../types.js";
import { metadataOf } from "./metadata.js";

const roles: Readonly<Record<string, string>> = {
  system: "system",
  developer: "system",
  human: "user",
  ai: "assistant",
};

/** Throws INVALID_OPTION for content that is no text. */
export const messagesOf = (messages: readonly BaseMessage[]): Message[] => messages.map(messageOf);

function messageOf(message: BaseMessage, index: number): Message {
  const { text, reasoning } = contentOf(message, index);
  const { type } = message;
  if (type === "tool") {
    const { tool_call_id: toolCallId, name } = message as BaseMessage & { tool_call_id: string };
    return { role: "tool", content: text, toolCallId, ...(name && { name }) };
  }
  const named = { ...(message.name && { name: message.name }) };
  if (type !== "ai") {
    const role = roles[type] ?? (message as { role?: unknown }).role;
    if (typeof role !== "string") throw invalidOption(`messages[${index}]`, type, "a message of a known type");
    return { role, content: text, ...named };
  }
  const calls = ((message as AIMessage).tool_calls ?? []).map(
    ({ id, name, args }): MessageToolCall => ({ ...(id && { id }), name, arguments: args }),
  );
  const thought = reasoning || message.additional_kwargs.reasoning_content;
  return {
    role: "assistant",
    content: text,
    ...named,
    ...(typeof thought === "string" && thought !== "" && { reasoning: thought }),
    ...(calls.length > 0 && { toolCalls: calls }),
  };
}

function contentOf({ content }: BaseMessage, index: number): { text: string; reasoning: string } {
  if (typeof content === "string") return { text: content, reasoning: "" };
  const told = { text: "", reasoning: "" };
  for (const [at, block] of content.entries()) {
    if (block.type === "text") told.text += block.text;
    else if (block.type === "reasoning") told.reasoning += block.reasoning ?? "";
    // A call stands in the message's tool_calls, too.
    else if (block.type !== "tool_call" && block.type !== "tool_use")
      throw invalidOption(`messages[${index}].content[${at}].type`, block.type, "text: the model reads nothing else");
  }
  return told;
}

function facts(result: GenerateResult, model: string) {
  const { promptTokens, cachedTokens, completionTokens } = result.usage;
  return {
    usage_metadata: {
      input_tokens: promptTokens,
      output_tokens: completionTokens,
      total_tokens: promptTokens + completionTokens,
      input_token_details: { cache_read: cachedTokens },
    },
    response_metadata: {
      model_provider: "sdar",
      model_name: model,
      finish_reason: result.toolCalls?.length ? "tool_calls" : result.finishReason,
      ...metadataOf(result),
    },
  };
}

const reasoningOf = (reasoning: string | undefined) =>
  reasoning === undefined ? {} : { additional_kwargs: { reasoning_content: reasoning } };

export function answerOf(result: GenerateResult, model: string): AIMessage {
  return new AIMessage({
    content: result.text,
    ...reasoningOf(result.reasoning),
    tool_calls: (result.toolCalls ?? []).map(({ id, name, value }) => ({ type: "tool_call", id, name, args: value })),
    ...facts(result, model),
  });
}

/** `calls`: how many came before. Undefined for a chunk that says nothing. */
export function chunkOf({ text, reasoning, toolCalls = [] }: Chunk, calls: number): AIMessageChunk | undefined {
  if (text === "" && reasoning === undefined && toolCalls.length === 0) return undefined;
  return new AIMessageChunk({
    content: text,
    ...reasoningOf(reasoning),
    tool_call_chunks: toolCalls.map(({ id, name, arguments: args }, i) => ({
      type: "tool_call_chunk",
      id,
      name,
      args,
      index: calls + i,
    })),
  });
}

/** The last chunk of a stream. */
export const lastChunkOf = (result: GenerateResult, model: string) =>
  new AIMessageChunk({ content: "", ...facts(result, model) });
