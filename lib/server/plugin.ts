// The server as a fastify plugin: a service mounts it under a prefix of its own, also more than once.
import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestHookHandler } from "fastify";
import { anthropicMessages, countTokens } from "./anthropic-messages.js";
import { type ApiKey, Auth } from "./auth.js";
import { parseJson } from "./body.js";
import { allowOrigins } from "./cors.js";
import { Drain } from "./drain.js";
import { type Caller, exchange, type Services } from "./exchange.js";
import { ServerMetrics } from "./metrics.js";
import { ModelRegistry, type ServedModels } from "./models.js";
import { chatCompletions } from "./openai-chat.js";
import { completions } from "./openai-completions.js";
import { openaiErrors } from "./openai-errors.js";
import { modelCard, modelList } from "./openai-models.js";
import { type Described, openapi } from "./openapi.js";
import { operations } from "./operations.js";
import { playground } from "./page.js";
import { ApiError, type Problem, problemOf } from "./problem.js";
import type { Endpoint, ErrorShape } from "./protocol.js";
import { idOf } from "./request-id.js";
import { responses } from "./responses.js";
import { detokenize, detokenizeSchema, tokenize, tokenizeSchema } from "./tokenize.js";

/** What `sdarPlugin` takes. */
export interface SdarPluginOptions {
  /** By the names that clients know them by: an engine, which stays its owner's, or what to load. */
  models: ServedModels;
  /**
   * Who may ask; each name is a tenant with an even share of the engine.
   *
   * @default anyone
   */
  apiKeys?: readonly ApiKey[];
  /**
   * Requests that one tenant may have at a time; without API keys, all together.
   *
   * @default no limit
   */
  maxRequestsPerKey?: number;
  /**
   * Whether tenants share cached prefixes: that is faster where all begin with the same system prompt, but the time to the first
   * token then tells what others have asked.
   *
   * @default false
   */
  sharePrefixes?: boolean;
  /**
   * Origins whose pages may ask, such as `https://example.com`, or `*` for all.
   *
   * @default none
   */
  cors?: readonly string[];
  /**
   * Bytes that a body may have.
   *
   * @default 2 MiB
   */
  bodyLimit?: number;
  /**
   * Milliseconds within which an answer must be there; requests may ask for less.
   *
   * @default no limit
   */
  deadlineMs?: number;
  /**
   * Milliseconds after which a stream that says nothing sends a comment, so that nobody on the way takes it for dead; 0 for never.
   *
   * @default 15,000
   */
  heartbeatMs?: number;
  /**
   * Milliseconds without a read after which a client that does not take its stream is cut off.
   *
   * @default 60,000
   */
  stallMs?: number;
  /**
   * Milliseconds for which closing waits for what is being answered.
   *
   * @default 30,000
   */
  graceMs?: number;
  /**
   * Whether browsers find a playground at `/`, a page that asks the endpoints beside it.
   *
   * @default false; true with `createServer`
   */
  page?: boolean;
  /** Called once with what the owner of the server may want to know and do. */
  onServer?: (handle: ServerHandle) => void;
}

/** What its owner can ask of a mounted server. */
export interface ServerHandle {
  /** Resolves once all models are loaded; rejects with the SdarError that says why one is not. */
  readonly loaded: Promise<void>;
  /** names of models */
  readonly models: string[];
  /** Refuses what is new with 503, lets what runs end within so many milliseconds, tells the rest. */
  drain(graceMs?: number): Promise<void>;
}

/** Endpoints that generate. */
const endpoints = [chatCompletions, completions, responses, anthropicMessages] as unknown as Endpoint<{
  model?: string | null;
}>[];

/** Endpoints that have to do with texts alone. */
const texts = [
  { path: "/tokenize", summary: "The tokens of a text or of messages", schema: tokenizeSchema, answer: tokenize },
  { path: "/detokenize", summary: "The text of tokens", schema: detokenizeSchema, answer: detokenize },
  countTokens,
] satisfies (Described & { answer: unknown })[];

/** How the endpoint of a path says what went wrong. */
const errorsOf = (url: string): ErrorShape =>
  ([...endpoints, ...texts] as Described[]).find(({ path }) => path === url)?.errors ?? openaiErrors;

/** What hooks have found out of a request. */
interface Known extends Caller {
  errors: ErrorShape;
}

const methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const;

/**
 * OpenAI's API on engines of this package: `app.register(sdarPlugin, { prefix: "/llm", models: { nano: engine } })`. Closing the
 * app drains it. Rejects, as `app.ready()`, with an SdarError where prom-client is not installed.
 */
export async function sdarPlugin(app: FastifyInstance, options: SdarPluginOptions): Promise<void> {
  const { graceMs = 30_000, bodyLimit = defaultBodyLimit } = options;
  const metrics = await ServerMetrics.create();
  const models = new ModelRegistry(options.models, (model) => metrics.attach(model));
  const drain = new Drain();
  const services: Services = {
    models,
    drain,
    deadlineMs: options.deadlineMs,
    heartbeatMs: options.heartbeatMs ?? 15_000,
    stallMs: options.stallMs ?? 60_000,
    sharePrefixes: options.sharePrefixes ?? false,
  };
  const auth = new Auth(options.apiKeys ?? [], options.maxRequestsPerKey);
  const known = new WeakMap<FastifyRequest, Known>();

  // Nothing else is read, whatever the service around it reads.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "string", bodyLimit }, (_, body, done) => {
    try {
      done(null, parseJson(body as string));
    } catch (error) {
      done(error as Error);
    }
  });
  // Hooks call back: a promise for each would cost every request a turn more.
  app.addHook("onRequest", (request, reply, done) => {
    const requestId = idOf(request.headers["x-request-id"]);
    reply.header("x-request-id", requestId);
    const { config } = request.routeOptions;
    const errors = (config as { errors?: ErrorShape }).errors ?? openaiErrors;
    if (errors.requestIdHeader) reply.header(errors.requestIdHeader, requestId);
    known.set(request, { requestId, errors, tenant: nobody });
    done();
  });
  if (options.cors?.length) app.addHook("onRequest", allowOrigins(options.cors));
  app.addHook("onResponse", (request, reply, done) => {
    metrics.answered(request.routeOptions.url ?? "none", reply.statusCode);
    const { requestId, tenant } = known.get(request) ?? {};
    const { method, url } = request;
    const told = { requestId, tenant: tenant?.name, method, url: url.split("?")[0], status: reply.statusCode };
    request.log.info({ ...told, ms: Math.round(reply.elapsedTime) }, "answered");
    done();
  });
  const fail = (error: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const problem = problemOf(error);
    if (problem.status === 500) request.log.error({ err: (error as Error).cause ?? error }, "a request failed");
    const { errors = openaiErrors, requestId = "" } = known.get(request) ?? {};
    return refuse(reply, problem, errors, requestId);
  };
  app.setErrorHandler((error, request, reply) => fail(error, request, reply));
  // An app that is not under a prefix may have a handler of its own.
  if (app.prefix !== "") app.setNotFoundHandler((request, reply) => fail(notFound(request), request, reply));

  /** Known paths say which methods they have. */
  const only = (url: string, ...allowed: (typeof methods)[number][]) => {
    const others = methods.filter((method) => !allowed.includes(method));
    const onRequest: onRequestHookHandler = async (request) => {
      const allow = allowed.join(", ");
      throw new ApiError(405, `${request.method} is not allowed; use ${allow}`, { headers: { allow } });
    };
    const config = { errors: errorsOf(url) };
    app.route({ method: others, url, config, exposeHeadRoute: false, onRequest, handler: () => {} });
  };
  const authenticate: onRequestHookHandler = (request, _, done) => {
    try {
      (known.get(request) as Known).tenant = auth.tenantOf(request.headers);
      done();
    } catch (error) {
      done(error as Error);
    }
  };
  for (const endpoint of endpoints) {
    const { path, errors } = endpoint;
    app.post(path, { bodyLimit, config: { errors }, onRequest: authenticate }, (request, reply) =>
      exchange(services, endpoint, known.get(request) as Known, request, reply),
    );
    only(path, "POST");
  }
  const get = (url: string, handler: (request: FastifyRequest) => object) => {
    app.get(url, { onRequest: authenticate }, async (request) => handler(request));
    only(url, "GET", "HEAD");
  };
  for (const { path, answer } of texts) {
    app.post(path, { bodyLimit, config: { errors: errorsOf(path) }, onRequest: authenticate }, async ({ body }) => {
      drain.check();
      return answer(body, (name) => models.get(name));
    });
    only(path, "POST");
  }
  get("/v1/models", () => modelList(models.all));
  get("/v1/models/*", ({ params }) => modelCard(models.get((params as { "*": string })["*"])));
  const description = openapi([...endpoints, ...texts]);
  app.get("/openapi.json", async () => description);
  only("/openapi.json", "GET", "HEAD");
  operations(app, { models, drain, metrics, only });
  if (options.page) playground(app, only);

  app.addHook("preClose", () => drain.drain(graceMs));
  app.addHook("onClose", async () => {
    metrics.close();
    await models.close();
  });
  options.onServer?.({ loaded: models.loaded, models: models.names, drain: (ms = graceMs) => drain.drain(ms) });
}

export const defaultBodyLimit = 2 ** 21;

/** Until it is known who asks. */
const nobody: Caller["tenant"] = { name: undefined, enter: () => () => {} };

const notFound = ({ method, url }: FastifyRequest) =>
  new ApiError(404, `there is no ${method} ${url.split("?")[0]?.slice(0, 200)}`, { code: "not_found" });

/** Answers with an error. */
export function refuse(reply: FastifyReply, problem: Problem, errors: ErrorShape, requestId: string): FastifyReply {
  const { status, retryAfterMs, headers = {} } = problem;
  if (retryAfterMs !== undefined) reply.header("retry-after", String(Math.max(1, Math.ceil(retryAfterMs / 1000))));
  return reply
    .code(status)
    .headers(headers)
    .type("application/json; charset=utf-8")
    .send(errors.body(problem, requestId));
}
