// One request of a client as runs of the engine: limits, aborts, errors, and the answer, whole or as events. All protocols use it.
import type { FastifyReply, FastifyRequest } from "fastify";
import type { Engine } from "../engine.js";
import type { GenerateRequest } from "../request.js";
import { EventWriter } from "../sse.js";
import type { GenerateResult, Run } from "../types.js";
import type { Tenant } from "./auth.js";
import type { Drain } from "./drain.js";
import { mostDropped, withoutKeyword } from "./loose-tools.js";
import type { ModelRegistry } from "./models.js";
import { ApiError, parseBody, problemOf } from "./problem.js";
import type { Endpoint, ErrorShape, ServerEvent, Translation } from "./protocol.js";

/** What exchanges share. */
export interface Services {
  models: ModelRegistry;
  drain: Drain;
  /** milliseconds within which an answer must be there; a request may ask for less */
  deadlineMs: number | undefined;
  /** milliseconds between comments in a stream that says nothing else */
  heartbeatMs: number;
  /** milliseconds without a read after which a client that does not take its stream is cut off */
  stallMs: number;
  /** whether tenants find each other's prefixes in the cache, which tells by time what others asked */
  sharePrefixes: boolean;
}

/** Who asks. */
export interface Caller {
  requestId: string;
  tenant: Tenant;
}

/** A request of a client on its way. */
interface Exchange {
  services: Services;
  errors: ErrorShape;
  caller: Caller;
  request: FastifyRequest;
  reply: FastifyReply;
  /** aborts when the client hangs up, or, with an ApiError as reason, when the server cannot wait any longer */
  cut: AbortController;
  /** notices who hangs up from the beginning on */
  writer: EventWriter;
}

/** Answers a request. Throws ApiError while nothing has been said yet. */
export async function exchange<Body extends { model?: string | null | undefined }>(
  services: Services,
  endpoint: Endpoint<Body>,
  caller: Caller,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  const cut = new AbortController();
  const leave = [caller.tenant.enter()];
  try {
    leave.push(services.drain.enter(cut));
    const { heartbeatMs, stallMs } = services;
    const onStall = () => reply.raw.destroy();
    const onClose = () => cut.abort();
    const heartbeat = endpoint.heartbeat && written(endpoint.heartbeat);
    const writer = new EventWriter(reply.raw, { heartbeatMs, heartbeat, stallMs, onStall, onClose });
    leave.push(() => writer.release());
    const body = parseBody(endpoint.schema, request.body);
    const { engine, name: model } = services.models.get(body.model);
    const created = Math.floor(Date.now() / 1000);
    const context = { engine, model, requestId: caller.requestId, created };
    const translation = await endpoint.translate(body, context, request.body as Record<string, unknown>);
    const self: Exchange = { services, errors: endpoint.errors, caller, request, reply, cut, writer };
    await inWords(translation, async () => {
      const requests = translation.requests.map((each) => limited(each, services, caller, cut.signal));
      const runs = await accepted(engine, requests);
      await (translation.stream ? answerEvents(self, runs, translation) : answerWhole(self, runs, translation));
    });
  } finally {
    for (const each of leave) each();
  }
}

/** Runs that the engine has accepted. Rejects with the SdarError that says why it has not. */
async function accepted(engine: Engine, given: readonly GenerateRequest[]): Promise<Run[]> {
  let requests = given;
  for (let dropped = 0; ; dropped++) {
    const runs = requests.map((each) => engine.generate(each));
    try {
      await all(runs, (run) => run.started);
      return runs;
    } catch (error) {
      const looser = dropped < mostDropped ? requests.map((each) => withoutKeyword(each, error)) : [];
      if (looser.length === 0 || !looser.every((each) => each !== undefined)) throw error;
      requests = looser;
    }
  }
}

/** A request with what is not the client's to say. */
function limited(
  request: GenerateRequest,
  { deadlineMs, sharePrefixes }: Services,
  { tenant: { name } }: Caller,
  signal: AbortSignal,
): GenerateRequest {
  const deadline = Math.min(request.deadline ?? Number.POSITIVE_INFINITY, deadlineMs ?? Number.POSITIVE_INFINITY);
  // As JSON, no two pairs of texts make the same one.
  const salt = sharePrefixes || name === undefined ? undefined : JSON.stringify([name, request.cache?.salt ?? ""]);
  return {
    ...request,
    signal,
    ...(name !== undefined && { key: name }),
    ...(Number.isFinite(deadline) && { deadline }),
    ...(salt !== undefined && { cache: { ...request.cache, salt } }),
  };
}

/** What is thrown, in the client's words: only the translation knows which field became which option. */
async function inWords(translation: Translation, act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (cause) {
    if (cause instanceof ApiError) throw cause;
    const { status, message, ...details } = problemOf(cause, translation.paramOf?.bind(translation));
    throw new ApiError(status, message, { ...details, cause });
  }
}

/** Of every run; where one fails, none goes on. */
async function all<T>(runs: readonly Run[], of: (run: Run, index: number) => Promise<T>): Promise<T[]> {
  try {
    return await Promise.all(runs.map(of));
  } catch (error) {
    for (const run of runs) run.abort();
    throw error;
  }
}

/** Throws what ended an exchange from this side. */
function checkCut({ cut: { signal } }: Exchange): void {
  if (signal.reason instanceof ApiError) throw signal.reason;
}

async function answerWhole(self: Exchange, runs: readonly Run[], translation: Translation): Promise<void> {
  const { reply, writer } = self;
  const results = await all(runs, (run) => run.result());
  checkCut(self);
  if (writer.gone) reply.hijack();
  else reply.send(translation.answer(results));
}

async function answerEvents(self: Exchange, runs: readonly Run[], translation: Translation): Promise<void> {
  const { errors, caller, request, reply, writer } = self;
  const events = translation.events();
  const send = (list: ServerEvent[]) => (list.length > 0 ? writer.write(list.map(written).join("")) : undefined);
  reply.hijack();
  writer.open(headersOf(reply));
  try {
    await inWords(translation, async () => {
      await send(events.begin());
      const results = await all(runs, async (run, index) => {
        for await (const chunk of run) {
          // Leaving the loop ends the run.
          if (writer.gone) break;
          const full = send(events.chunk(chunk, index));
          if (full) await full;
        }
        const result = await run.result();
        checkCut(self);
        await send(events.ended(result, index));
        return result;
      });
      await send(events.done(results as GenerateResult[]));
    });
  } catch (error) {
    const problem = problemOf(error);
    if (problem.status === 500) request.log.error({ err: (error as Error).cause ?? error }, "a stream failed");
    await send(events.failed?.(problem) ?? errors.events(problem, caller.requestId));
  }
  await writer.end();
}

const written = ({ event, data }: ServerEvent): string =>
  `${event === undefined ? "" : `event: ${event}\n`}data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;

/** What hooks have set, which Node's own response does not know yet. */
function headersOf(reply: FastifyReply): Record<string, string> {
  const given = Object.entries(reply.getHeaders()).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given.map(([name, value]) => [name, String(value)]));
}
