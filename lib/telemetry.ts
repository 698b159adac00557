// One OpenTelemetry span per request, named and attributed as the GenAI semantic conventions have it where they do. Without
// an SDK in the process there is no span, and nothing to do. Its API is an optional package: who registers an SDK has it.
import { createRequire } from "node:module";
import type { Attributes, Span, Tracer } from "@opentelemetry/api";
import type { SdarError } from "./errors.js";
import { safely } from "./events.js";
import type { ParsedRequest } from "./options.js";
import type { GenerateResult } from "./types.js";

// Its numbers, so that nothing is loaded for them.
const SpanKind = { INTERNAL: 0 } as const;
const SpanStatusCode = { ERROR: 2 } as const;

/** Where an SDK keeps itself for all copies of the API, of this major version. */
const registry = Symbol.for("opentelemetry.js.api.1");

let tracer: Tracer | undefined;

/** Loaded with the first request after an SDK has registered; undefined before. */
function findTracer(): Tracer | undefined {
  if (tracer || !(registry in globalThis)) return tracer;
  const { trace } = createRequire(import.meta.url)("@opentelemetry/api") as typeof import("@opentelemetry/api");
  tracer = trace.getTracer("sdar-engine");
  return tracer;
}

export class RequestSpan {
  readonly #span: Span;

  private constructor(span: Span) {
    this.#span = span;
  }

  /** A child of the active span; undefined when nobody records. `began` is in milliseconds since the epoch. */
  static begin(model: string, parsed: ParsedRequest, maxTokens: number, began: number): RequestSpan | undefined {
    let request: RequestSpan | undefined;
    // What records may be anyone's: it must not break a request.
    safely(() => {
      const attributes = {
        "gen_ai.operation.name": Array.isArray(parsed.prompt) ? "chat" : "text_completion",
        "gen_ai.provider.name": "sdar-engine",
        "gen_ai.request.model": model,
      };
      const span = findTracer()?.startSpan("sdar.generate", { kind: SpanKind.INTERNAL, startTime: began, attributes });
      if (!span?.isRecording()) return;
      request = new RequestSpan(span);
      span.setAttributes(requestAttributes(parsed, maxTokens));
    });
    return request;
  }

  event(name: "queued" | "started" | "preempted" | "first_token", attributes?: Attributes): void {
    safely(() => this.#span.addEvent(name, attributes));
  }

  end(outcome: GenerateResult | SdarError): void {
    safely(() => {
      if (outcome instanceof Error) {
        this.#span.setAttribute("error.type", outcome.code);
        this.#span.recordException(outcome);
        this.#span.setStatus({ code: SpanStatusCode.ERROR, message: outcome.message });
      } else {
        this.#span.setAttributes(resultAttributes(outcome));
      }
    });
    safely(() => this.#span.end());
  }
}

function requestAttributes({ native, stop, seed, n, key, deadline }: ParsedRequest, maxTokens: number): Attributes {
  return {
    "gen_ai.request.max_tokens": maxTokens,
    "gen_ai.request.temperature": native.temperature,
    "gen_ai.request.top_p": native.topP,
    "gen_ai.request.top_k": native.topK || undefined,
    "gen_ai.request.seed": Number.isSafeInteger(Number(seed)) ? Number(seed) : undefined,
    "gen_ai.request.stop_sequences": stop.length > 0 ? stop : undefined,
    "gen_ai.request.choice.count": n > 1 ? n : undefined,
    "sdar.request.block_length": native.blockLength,
    "sdar.request.priority": native.priority,
    "sdar.request.key": key,
    "sdar.request.deadline_ms": deadline,
  };
}

function resultAttributes({ usage, finishReason, answers }: GenerateResult): Attributes {
  const reasons: Record<string, string> = { end: "stop", stop: "stop", length: "length", abort: "abort" };
  return {
    "gen_ai.usage.input_tokens": usage.promptTokens,
    "gen_ai.usage.output_tokens": usage.completionTokens,
    "gen_ai.usage.cache_read.input_tokens": usage.cachedTokens,
    "gen_ai.response.finish_reasons": (answers ?? [{ finishReason }]).map((a) => reasons[a.finishReason] as string),
    "sdar.usage.forwards": usage.forwards,
  };
}
