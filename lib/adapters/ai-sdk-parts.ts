// What a run gives, as the AI SDK has it: content, stream parts, usage, metadata.
import { randomUUID } from "node:crypto";
import type {
  LanguageModelV3Content,
  LanguageModelV3FinishReason,
  LanguageModelV3StreamPart,
  LanguageModelV3Usage,
  SharedV3ProviderMetadata,
  SharedV3Warning,
} from "@ai-sdk/provider";
import type { Chunk, GenerateResult, Run, ToolCall, Usage } from "../types.js";
import { metadataOf } from "./metadata.js";

export const responseOf = (modelId: string) => ({ id: randomUUID(), timestamp: new Date(), modelId });

const toolCall = ({ id, name, arguments: input }: ToolCall) =>
  ({ type: "tool-call", toolCallId: id, toolName: name, input }) as const;

export function contentOf({ text, reasoning, toolCalls = [] }: GenerateResult): LanguageModelV3Content[] {
  return [
    ...(reasoning === undefined ? [] : [{ type: "reasoning" as const, text: reasoning }]),
    ...(text === "" ? [] : [{ type: "text" as const, text }]),
    ...toolCalls.map(toolCall),
  ];
}

const unified = { end: "stop", stop: "stop", length: "length", abort: "other" } as const;

export function finishOf({ finishReason, toolCalls }: GenerateResult): LanguageModelV3FinishReason {
  return { unified: toolCalls?.length ? "tool-calls" : unified[finishReason], raw: finishReason };
}

export function usageOf({ usage, reasoning }: GenerateResult): LanguageModelV3Usage {
  const { promptTokens, cachedTokens, completionTokens } = usage;
  // The engine counts no reasoning apart.
  const thought = reasoning !== undefined;
  return {
    inputTokens: {
      total: promptTokens,
      noCache: promptTokens - cachedTokens,
      cacheRead: cachedTokens,
      cacheWrite: undefined,
    },
    outputTokens: {
      total: completionTokens,
      text: thought ? undefined : completionTokens,
      reasoning: thought ? undefined : 0,
    },
    raw: { ...usage } as Required<Usage>,
  };
}

export const providerMetadata = (result: GenerateResult): SharedV3ProviderMetadata => ({ sdar: metadataOf(result) });

/** The parts of a stream. Leaving it aborts the run. */
export async function* partsOf(
  run: Run,
  { modelId, warnings, raw }: { modelId: string; warnings: SharedV3Warning[]; raw: boolean },
): AsyncGenerator<LanguageModelV3StreamPart, void> {
  yield { type: "stream-start", warnings };
  yield { type: "response-metadata", ...responseOf(modelId) };
  const texts = new OpenPart();
  for await (const chunk of run) {
    if (raw) yield { type: "raw", rawValue: chunk };
    yield* texts.take(chunk);
    for (const call of chunk.toolCalls ?? []) {
      yield* texts.end();
      const { id, name: toolName, arguments: delta } = call;
      yield { type: "tool-input-start", id, toolName };
      yield { type: "tool-input-delta", id, delta };
      yield { type: "tool-input-end", id };
      yield toolCall(call);
    }
  }
  yield* texts.end();
  const result = await run.result();
  yield {
    type: "finish",
    usage: usageOf(result),
    finishReason: finishOf(result),
    providerMetadata: providerMetadata(result),
  };
}

/** How a stream ends that has begun and fails. */
export function failure(error: Error): LanguageModelV3StreamPart[] {
  const inputTokens = { total: undefined, noCache: undefined, cacheRead: undefined, cacheWrite: undefined };
  const usage = { inputTokens, outputTokens: { total: undefined, text: undefined, reasoning: undefined } };
  return [
    { type: "error", error },
    { type: "finish", usage, finishReason: { unified: "error", raw: undefined } },
  ];
}

/** Text and reasoning come in parts that begin and end. */
class OpenPart {
  #open: { kind: "text" | "reasoning"; id: string } | undefined;
  #count = 0;

  *take({ text, reasoning = "" }: Chunk): Generator<LanguageModelV3StreamPart> {
    if (reasoning !== "") yield* this.#add("reasoning", reasoning);
    if (text !== "") yield* this.#add("text", text);
  }

  *end(): Generator<LanguageModelV3StreamPart> {
    if (this.#open) yield { type: `${this.#open.kind}-end`, id: this.#open.id };
    this.#open = undefined;
  }

  *#add(kind: "text" | "reasoning", delta: string): Generator<LanguageModelV3StreamPart> {
    if (this.#open?.kind !== kind) {
      yield* this.end();
      this.#open = { kind, id: `${kind}-${this.#count++}` };
      yield { type: `${kind}-start`, id: this.#open.id };
    }
    yield { type: `${kind}-delta`, id: this.#open.id, delta };
  }
}
