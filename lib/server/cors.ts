// Pages of other origins may ask only where the server's owner says so.
import type { onRequestAsyncHookHandler } from "fastify";

/** Answers preflights, and lets the pages of these origins read answers; `*` is any. */
export function allowOrigins(origins: readonly string[]): onRequestAsyncHookHandler {
  const any = origins.includes("*");
  return async (request, reply) => {
    const { origin } = request.headers;
    if (!any) reply.header("vary", "origin");
    if (origin === undefined || !(any || origins.includes(origin))) return;
    reply.header("access-control-allow-origin", any ? "*" : origin);
    reply.header("access-control-expose-headers", "x-request-id, retry-after");
    if (request.method !== "OPTIONS" || request.headers["access-control-request-method"] === undefined) return;
    return reply
      .code(204)
      .header("access-control-allow-methods", "GET, POST")
      .header("access-control-allow-headers", allowedHeaders(request.headers["access-control-request-headers"]))
      .header("access-control-max-age", "86400")
      .send();
  };
}

/** Clients send headers of their own, such as x-stainless-lang; none of them does anything here. */
function allowedHeaders(asked: string | undefined): string {
  const names = (asked ?? "").split(",").map((name) => name.trim().toLowerCase());
  const plain = names.filter((name) => /^[a-z0-9-]{1,64}$/.test(name)).slice(0, 64);
  return [...new Set(["authorization", "content-type", "x-api-key", "x-request-id", ...plain])].join(", ");
}
