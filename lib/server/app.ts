// A whole server: fastify with limits for strangers, and the plugin in it.
import type { Socket } from "node:net";
import type { FastifyInstance } from "fastify";
import { openaiErrors } from "./openai-errors.js";
import { serverPackage } from "./optional.js";
import { defaultBodyLimit, refuse, type SdarPluginOptions, type ServerHandle, sdarPlugin } from "./plugin.js";
import { ApiError, problemOf } from "./problem.js";
import { idOf } from "./request-id.js";

/** What `createServer` takes. */
export interface ServerOptions extends SdarPluginOptions {
  /**
   * Where the endpoints are.
   *
   * @default "" for /v1, /health and so on
   */
  prefix?: string;
  /**
   * Milliseconds within which a request must have arrived, its body included.
   *
   * @default 60,000
   */
  requestTimeoutMs?: number;
  /**
   * Milliseconds for which a connection without a request stays open; longer than that of a proxy in front.
   *
   * @default 75,000
   */
  keepAliveMs?: number;
  /**
   * What of the log goes to standard error, as JSON: requests are `"info"`.
   *
   * @default "silent"
   */
  logLevel?: "silent" | "fatal" | "error" | "warn" | "info" | "debug" | "trace";
}

/** A server that does not listen yet. */
export interface SdarServer extends ServerHandle {
  readonly app: FastifyInstance;
  /** Resolves with the address, such as `http://127.0.0.1:8000`; models go on loading. */
  listen(address?: { port?: number; host?: string }): Promise<string>;
  /** Drains, then closes and frees what was loaded here. */
  close(graceMs?: number): Promise<void>;
}

/**
 * A server with everything that `sdar serve` has. Rejects with an SdarError where fastify or prom-client is not installed.
 *
 * @example
 * const server = await createServer({ models: { nano: "sdar-nano" } });
 * console.log(await server.listen({ port: 8000 }));
 */
export async function createServer(options: ServerOptions): Promise<SdarServer> {
  const {
    prefix = "",
    page = true,
    requestTimeoutMs = 60_000,
    keepAliveMs = 75_000,
    logLevel = "silent",
    ...rest
  } = options;
  const { fastify, LogController } = await serverPackage("fastify", () => import("fastify"));
  const disableRequestLogging = true; // one line for each is enough: the plugin's
  const app = fastify({
    bodyLimit: rest.bodyLimit ?? defaultBodyLimit,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: keepAliveMs,
    connectionTimeout: 0, // a stream may be silent for longer than any would allow
    http: {
      maxHeaderSize: 16_384,
      headersTimeout: Math.min(requestTimeoutMs, 30_000),
      connectionsCheckingInterval: Math.min(requestTimeoutMs, 10_000),
    },
    routerOptions: { maxParamLength: 512 },
    forceCloseConnections: true,
    ...(LogController ? { logController: new LogController({ disableRequestLogging }) } : { disableRequestLogging }), // before fastify 5.12
    logger: logLevel === "silent" ? false : { level: logLevel, stream: process.stderr },
    clientErrorHandler: tellClientError,
    frameworkErrors: (error, _, reply) => refuse(reply, problemOf(error), openaiErrors, ""),
  });
  app.setNotFoundHandler((request, reply) => {
    const requestId = idOf(request.headers["x-request-id"]);
    const path = request.url.split("?")[0]?.slice(0, 200);
    const { problem } = new ApiError(404, `there is no ${request.method} ${path}`, { code: "not_found" });
    return refuse(reply.header("x-request-id", requestId), problem, openaiErrors, requestId);
  });
  let handle: ServerHandle | undefined;
  const onServer = (made: ServerHandle) => {
    handle = made;
    rest.onServer?.(made);
  };
  app.register(sdarPlugin, { ...rest, page, prefix, onServer });
  try {
    await app.ready();
  } catch (error) {
    await app.close();
    throw error;
  }
  const { loaded, models, drain } = handle as unknown as ServerHandle;
  return {
    app,
    loaded,
    models,
    drain,
    listen: ({ port = 0, host = "127.0.0.1" } = {}) => app.listen({ port, host }),
    async close(graceMs) {
      await drain(graceMs);
      await app.close();
    },
  };
}

const clientErrors: Record<string, [status: string, message: string]> = {
  ERR_HTTP_REQUEST_TIMEOUT: ["408 Request Timeout", "the request did not arrive in time"],
  HPE_HEADER_OVERFLOW: ["431 Request Header Fields Too Large", "the headers are too large"],
};

/** What is no HTTP gets an answer, too. */
function tellClientError(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || socket.destroyed || !socket.writable) return void socket.destroy();
  const [line, message] = clientErrors[error.code ?? ""] ?? ["400 Bad Request", "this is no valid HTTP request"];
  const status = Number.parseInt(line, 10);
  const body = JSON.stringify(openaiErrors.body({ status, message, code: null, param: null }, ""));
  const head = `HTTP/1.1 ${line}\r\ncontent-type: application/json; charset=utf-8\r\nconnection: close`;
  socket.end(`${head}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`, () => socket.destroy());
}
