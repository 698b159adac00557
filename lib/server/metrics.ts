// What Prometheus is told: vLLM's names where they mean the same, `sdar:` for the rest. From a registry of its own.
import type { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Engine } from "../engine.js";
import type { EngineStats } from "../stats.js";
import type { ServedModel } from "./models.js";
import { serverPackage } from "./optional.js";

/** The bounds of vLLM's histograms, in seconds. */
const firstTokenBuckets = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
];
const latencyBuckets = [0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480];

type Read = (stats: EngineStats) => number;

const gauges: Record<string, [help: string, read: Read]> = {
  "vllm:num_requests_running": ["Completions in the engine's steps", ({ running }) => running],
  "vllm:num_requests_waiting": ["Completions that wait for a slot", ({ waiting, queue }) => waiting + queue.requests],
  "vllm:kv_cache_usage_perc": ["Share of the pages of keys and values in use, 0 to 1", usedPages],
  "vllm:gpu_cache_usage_perc": ["The same by its older name", usedPages],
  "sdar:num_requests_held": ["Completions held back by readers that lag behind", ({ paused }) => paused],
  "sdar:cached_pages": ["Pages that only the prefix cache holds", ({ pages }) => pages.cached],
  "sdar:tokens_per_second": ["Tokens generated, of about the last ten seconds", ({ recent }) => recent.tokensPerSecond],
  "sdar:tokens_per_forward": [
    "Tokens that a denoising step fills, on average since loading",
    ({ filledTokens, forwards }) => (forwards > 0 ? filledTokens / forwards : 0),
  ],
};

const counters: Record<string, [help: string, read: Read]> = {
  "vllm:prompt_tokens_total": ["Tokens of prompts", ({ promptTokens }) => promptTokens],
  "vllm:generation_tokens_total": ["Tokens generated", ({ filledTokens }) => filledTokens],
  "vllm:prefix_cache_queries_total": ["Tokens of prompts looked for in the prefix cache", (s) => s.promptTokens],
  "vllm:prefix_cache_hits_total": ["Tokens of prompts found in the prefix cache", ({ cachedTokens }) => cachedTokens],
  "vllm:num_preemptions_total": ["Completions preempted when pages ran out", ({ preemptions }) => preemptions],
  "sdar:forwards_total": ["Denoising steps of requests", ({ forwards }) => forwards],
  "sdar:steps_total": ["Steps of the engine, each for all that runs", ({ steps }) => steps],
  "sdar:drafted_tokens_total": ["Tokens that a draft model proposed", ({ draftedTokens }) => draftedTokens],
  "sdar:accepted_tokens_total": ["Proposed tokens that the model kept", ({ acceptedTokens }) => acceptedTokens],
  "sdar:requests_rejected_total": ["Requests rejected by a full queue", ({ queue }) => queue.rejected],
};

function usedPages({ pages: { active, total } }: EngineStats): number {
  return total > 0 ? active / total : 0;
}

/** Counts what a server answers, and reads what its engines count. */
export class ServerMetrics {
  readonly registry: Registry;
  readonly #models: ServedModel[] = [];
  readonly #firstToken: Histogram<"model_name">;
  readonly #latency: Histogram<"model_name">;
  readonly #responses: Counter<"route" | "status">;
  readonly #ended = new AbortController();

  private constructor(prom: typeof import("prom-client")) {
    this.registry = new prom.Registry();
    const registers = [this.registry];
    const labelNames = ["model_name"] as const;
    const read = (metric: Gauge<"model_name">, of: Read) =>
      this.#read((labels, stats) => metric.set(labels, of(stats)));
    for (const [name, [help, of]] of Object.entries(gauges)) {
      const gauge: Gauge<"model_name"> = new prom.Gauge({
        ...{ name, help, labelNames, registers },
        collect: () => read(gauge, of),
      });
    }
    for (const [name, [help, of]] of Object.entries(counters)) {
      const counter: Counter<"model_name"> = new prom.Counter({
        ...{ name, help, labelNames, registers },
        collect: () => {
          counter.reset();
          this.#read((labels, stats) => counter.inc(labels, of(stats)));
        },
      });
    }
    const success: Counter<"model_name" | "finished_reason"> = new prom.Counter({
      name: "vllm:request_success_total",
      help: "Completions that came to their end, by why",
      labelNames: ["model_name", "finished_reason"],
      registers,
      collect: () => {
        success.reset();
        this.#read((labels, { finished: { end, stop, length, abort } }) => {
          for (const [finished_reason, count] of Object.entries({ stop: end + stop, length, abort }))
            success.inc({ ...labels, finished_reason }, count);
        });
      },
    });
    this.#firstToken = new prom.Histogram({
      name: "vllm:time_to_first_token_seconds",
      help: "From a request's arrival to its first tokens",
      ...{ labelNames, registers, buckets: firstTokenBuckets },
    });
    this.#latency = new prom.Histogram({
      name: "vllm:e2e_request_latency_seconds",
      help: "From a request's arrival to its end",
      ...{ labelNames, registers, buckets: latencyBuckets },
    });
    this.#responses = new prom.Counter({
      name: "sdar:http_responses_total",
      help: "Answers over HTTP, by route and status",
      labelNames: ["route", "status"],
      registers,
    });
  }

  /** Throws an SdarError where prom-client is not installed. */
  static async create(): Promise<ServerMetrics> {
    const module = await serverPackage("prom-client", () => import("prom-client"));
    return new ServerMetrics(module.default ?? module);
  }

  /** From here on the model is counted. */
  attach(model: ServedModel): void {
    this.#models.push(model);
    const labels = { model_name: model.name };
    const { signal } = this.#ended;
    model.engine.on(
      "finished",
      ({ elapsedMs, firstTokenMs }) => {
        this.#latency.observe(labels, elapsedMs / 1000);
        if (firstTokenMs !== undefined) this.#firstToken.observe(labels, firstTokenMs / 1000);
      },
      { signal },
    );
  }

  /** `route` as it was registered, not as it was asked for: strangers choose what they ask for. */
  answered(route: string, status: number): void {
    this.#responses.inc({ route, status: String(status) });
  }

  /** Listens no longer to engines, which may live on. */
  close(): void {
    this.#ended.abort();
  }

  #read(each: (labels: { model_name: string }, stats: EngineStats) => void): void {
    for (const { name, engine } of this.#models) {
      const stats = statsOf(engine);
      if (stats) each({ model_name: name }, stats);
    }
  }
}

/** None once it was disposed of. */
function statsOf(engine: Engine): EngineStats | undefined {
  try {
    return engine.stats();
  } catch {
    return undefined;
  }
}
