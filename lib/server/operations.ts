// What those who run a server ask it: whether it lives, whether it takes requests, what it counts.
import { join } from "node:path";
import type { FastifyInstance } from "fastify";
import { packageRoot, readJson } from "../checkpoint.js";
import type { Drain } from "./drain.js";
import type { ServerMetrics } from "./metrics.js";
import type { ModelRegistry } from "./models.js";
import { ApiError } from "./problem.js";

interface Parts {
  models: ModelRegistry;
  drain: Drain;
  metrics: ServerMetrics;
  /** refuses other methods */
  only(url: string, ...methods: ("GET" | "HEAD")[]): void;
}

export const packageVersion = (): string =>
  String(readJson(join(packageRoot, "package.json"), "FILE_UNREADABLE")?.version);

export function operations(app: FastifyInstance, { models, drain, metrics, only }: Parts): void {
  const version = packageVersion();
  app.get("/health", async () => ({ status: "ok" }));
  app.get("/ready", async () => {
    drain.check();
    if (!models.ready) {
      throw new ApiError(503, "not all models can be used yet", { code: "model_loading", retryAfterMs: 1000 });
    }
    return { status: "ready", models: models.names };
  });
  app.get("/version", async () => ({ version }));
  app.get("/metrics", async (_, reply) => {
    reply.type(metrics.registry.contentType);
    return metrics.registry.metrics();
  });
  for (const url of ["/health", "/ready", "/version", "/metrics"]) only(url, "GET", "HEAD");
}
