// Requests to a hub: redirects, which must not take the token elsewhere, and what may pass when it is tried again.
import { setTimeout as sleep } from "node:timers/promises";
import { describe, SdarError } from "./errors.js";

export interface HubSettings {
  /** address of the hub, without a slash at the end */
  endpoint: string;
  token: string | undefined;
  /** tries of what may pass, besides the first */
  retries: number;
  /** milliseconds before the first of them; each next one waits twice as long */
  retryMs: number;
  /** milliseconds without a byte after which a connection is given up */
  stallMs: number;
  signal?: AbortSignal | undefined;
}

const mostRedirects = 10;
/** What a server says that it may get over. */
const passing = new Set([408, 425, 429, 500, 502, 503, 504]);
const mostWaitMs = 60_000;

/** One that trying again may get over. */
export class PassingError extends Error {
  readonly waitMs: number | undefined;

  constructor(message: string, waitMs?: number) {
    super(message);
    this.waitMs = waitMs;
  }
}

export const failed = (message: string, cause?: unknown): SdarError =>
  new SdarError("DOWNLOAD_FAILED", message, { cause });

/** Tries until it comes through; `progress` says whether a failed try came further, which counts as a first one again. */
export async function persist<T>(hub: HubSettings, attempt: () => Promise<T>, progress = () => false): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      hub.signal?.throwIfAborted();
      if (!(error instanceof PassingError)) throw error;
      if (progress()) tries = 0;
      if (tries >= hub.retries) throw failed(error.message, error);
      const waitMs = Math.min(error.waitMs ?? hub.retryMs * 2 ** tries, mostWaitMs);
      await sleep(waitMs, undefined, { ...(hub.signal && { signal: hub.signal }) });
    }
  }
}

/** The answer to a request, redirects followed. Throws SdarError, or PassingError where trying again may help. */
export async function hubFetch(hub: HubSettings, url: string, init: RequestInit = {}): Promise<Response> {
  const home = new URL(hub.endpoint);
  let at = new URL(url);
  for (let hops = 0; hops <= mostRedirects; hops++) {
    const headers = new Headers(init.headers);
    headers.delete("authorization");
    // Files lie on other hosts, which are given addresses that are signed: the token is the hub's alone.
    if (hub.token !== undefined && at.origin === home.origin) headers.set("authorization", `Bearer ${hub.token}`);
    let response: Response;
    try {
      response = await fetch(at, { ...init, headers, redirect: "manual" });
    } catch (error) {
      hub.signal?.throwIfAborted();
      const cause = (error as Error).cause;
      throw new PassingError(`${at.host} cannot be reached: ${describe(cause ?? error)}`);
    }
    const location = response.headers.get("location");
    if (response.status < 300 || response.status >= 400 || location === null) return checked(response, at, hub);
    await response.body?.cancel();
    const next = new URL(location, at);
    if (!/^https?:$/.test(next.protocol) || (at.protocol === "https:" && next.protocol === "http:")) {
      throw failed(`${at.host} leads to ${next.protocol}//${next.host}, which is not as safe`);
    }
    at = next;
  }
  throw failed(`${new URL(url).host} leads in circles: more than ${mostRedirects} redirects`);
}

async function checked(response: Response, { host, pathname }: URL, hub: HubSettings): Promise<Response> {
  const { status } = response;
  if (response.ok || status === 416) return response;
  await response.body?.cancel();
  const what = `${host} answers ${status} for ${pathname}`;
  if (passing.has(status)) throw new PassingError(what, retryAfter(response));
  if (status === 401 || status === 403) {
    const token =
      hub.token === undefined ? "set HF_TOKEN if it is a private or gated one" : "HF_TOKEN does not open it";
    throw new SdarError("MODEL_NOT_FOUND", `${what}: there is no such model, or not for you; ${token}`);
  }
  if (status === 404) throw new SdarError("MODEL_NOT_FOUND", `${what}: there is no such model or revision`);
  throw failed(what);
}

function retryAfter({ headers }: Response): number | undefined {
  const seconds = Number(headers.get("retry-after") ?? Number.NaN);
  return seconds >= 0 ? 1000 * seconds : undefined;
}
