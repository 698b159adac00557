// A call of the AI SDK as the engine's request, and what of it the engine has no place for.
import {
  type LanguageModelV3CallOptions,
  type LanguageModelV3Prompt,
  type LanguageModelV3ToolResultOutput,
  type SharedV3Warning,
  UnsupportedFunctionalityError,
} from "@ai-sdk/provider";
import type { GenerateRequest, Message, MessageToolCall, RequestFields, ToolFunction } from "../types.js";
import { schemaOf } from "./metadata.js";
import { requestOptions } from "./request-options.js";

export interface CallRequest {
  request: GenerateRequest;
  warnings: SharedV3Warning[];
}

/** Throws UnsupportedFunctionalityError for parts of a prompt that are no text, INVALID_OPTION for `providerOptions.sdar`. */
export function requestOf(call: LanguageModelV3CallOptions, settings: object | undefined): CallRequest {
  const warnings: SharedV3Warning[] = [];
  const options = requestOptions("providerOptions.sdar", settings, call.providerOptions?.sdar);
  const { maxOutputTokens, temperature, topP, topK, presencePenalty, frequencyPenalty, seed, stopSequences } = call;
  const named: Partial<RequestFields> = {
    maxTokens: maxOutputTokens,
    temperature,
    topP,
    topK,
    presencePenalty,
    frequencyPenalty,
    seed,
    stop: stopSequences?.length ? stopSequences : undefined,
    signal: call.abortSignal,
    ...formatOf(call),
    ...toolsOf(call, warnings),
  };
  const given = Object.entries(named).filter(([, value]) => value !== undefined);
  const request = { messages: messagesOf(call.prompt), ...options, ...Object.fromEntries(given) };
  return { request: request as GenerateRequest, warnings };
}

function formatOf({ responseFormat }: LanguageModelV3CallOptions): Pick<RequestFields, "format"> {
  if (responseFormat?.type !== "json") return {};
  const { schema } = responseFormat;
  return { format: schema ? { type: "json_schema", schema: schemaOf(schema) } : { type: "json" } };
}

function toolsOf(
  { tools = [], toolChoice }: LanguageModelV3CallOptions,
  warnings: SharedV3Warning[],
): Pick<RequestFields, "tools" | "toolChoice"> {
  const functions: ToolFunction[] = [];
  for (const tool of tools) {
    if (tool.type !== "function") {
      warnings.push({ type: "unsupported", feature: `provider-defined tool ${tool.id}` });
      continue;
    }
    const { name, description, inputSchema, inputExamples } = tool;
    if (inputExamples?.length) warnings.push({ type: "unsupported", feature: `inputExamples of tool ${name}` });
    functions.push({ name, ...(description !== undefined && { description }), parameters: schemaOf(inputSchema) });
  }
  if (functions.length === 0) return {};
  const choice = toolChoice?.type === "tool" ? { name: toolChoice.toolName } : toolChoice?.type;
  return { tools: functions, ...(choice !== undefined && { toolChoice: choice }) };
}

const unsupported = (functionality: string) => new UnsupportedFunctionalityError({ functionality });

function messagesOf(prompt: LanguageModelV3Prompt): Message[] {
  return prompt.flatMap((message): Message[] => {
    switch (message.role) {
      case "system":
        return [{ role: "system", content: message.content }];
      case "user":
        return [{ role: "user", content: message.content.map(userText).join("") }];
      case "assistant":
        return [assistantMessage(message.content)];
      case "tool":
        // An approval's answer says nothing to the model; what came of it follows as the tool's result.
        return message.content.flatMap((part) => (part.type === "tool-result" ? [resultMessage(part)] : []));
      default:
        throw unsupported(`messages of role ${String((message as { role: unknown }).role)}`);
    }
  });
}

type PartOf<Role extends "user" | "assistant" | "tool"> = Extract<
  LanguageModelV3Prompt[number],
  { role: Role }
>["content"][number];

function userText(part: PartOf<"user">): string {
  if (part.type !== "text") throw unsupported(`parts of type ${part.type} (${part.mediaType}): the model reads text`);
  return part.text;
}

function assistantMessage(parts: PartOf<"assistant">[]): Message {
  let content = "";
  let reasoning = "";
  const toolCalls: MessageToolCall[] = [];
  for (const part of parts) {
    if (part.type === "text") content += part.text;
    else if (part.type === "reasoning") reasoning += part.text;
    else if (part.type === "tool-call" && !part.providerExecuted)
      toolCalls.push({ id: part.toolCallId, name: part.toolName, arguments: argumentsOf(part.input) });
    else throw unsupported(`parts of type ${part.type} in a message of the assistant`);
  }
  return {
    role: "assistant",
    content,
    ...(reasoning !== "" && { reasoning }),
    ...(toolCalls.length > 0 && { toolCalls }),
  };
}

/** As an object, which the chat template writes as models have learnt it. */
const argumentsOf = (input: unknown) => (typeof input === "string" ? input : ((input ?? {}) as object));

function resultMessage({ toolCallId, toolName, output }: Extract<PartOf<"tool">, { type: "tool-result" }>): Message {
  return { role: "tool", toolCallId, name: toolName, content: outputText(output) };
}

function outputText(output: LanguageModelV3ToolResultOutput): string {
  switch (output.type) {
    case "text":
    case "error-text":
      return output.value;
    case "json":
    case "error-json":
      return JSON.stringify(output.value);
    case "execution-denied":
      return output.reason ?? "The call was denied.";
    case "content":
      return output.value
        .map((part) => {
          if (part.type !== "text") throw unsupported(`parts of type ${part.type} in a tool's result`);
          return part.text;
        })
        .join("");
    default:
      throw unsupported(`results of type ${String((output as { type: unknown }).type)}`);
  }
}
