// API keys: who may ask, and on whose account.
import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { invalidOption } from "../errors.js";
import { bounds } from "../limits.js";
import { ApiError } from "./problem.js";

/** A secret that clients send, and whom it belongs to. */
export interface ApiKey {
  /** the tenant: requests of one share of the engine's fairness, and the name in logs; several keys may have the same */
  name: string;
  key: string;
}

/** Whom a request is for. */
export interface Tenant {
  /** undefined where the server has no API keys */
  readonly name: string | undefined;
  /** Counts a request in; returns what counts it out. Throws ApiError 429. */
  enter(): () => void;
}

const digest = (text: string) => createHash("sha256").update(text).digest();

class CountingTenant implements Tenant {
  #active = 0;

  constructor(
    readonly name: string | undefined,
    readonly most: number,
  ) {}

  enter(): () => void {
    if (this.#active >= this.most) {
      const message = `this key has ${this.#active} requests already; at most ${this.most} at a time`;
      throw new ApiError(429, message, { code: "too_many_requests", retryAfterMs: 1000 });
    }
    this.#active++;
    let left = false;
    return () => {
      if (!left) this.#active--;
      left = true;
    };
  }
}

export class Auth {
  readonly #keys: { hash: Buffer; tenant: Tenant }[];
  readonly #anyone: Tenant | undefined;

  /** Without keys anyone may ask. `maxRequestsPerKey`: at a time, of one tenant. */
  constructor(keys: readonly ApiKey[], maxRequestsPerKey = Number.POSITIVE_INFINITY) {
    const tenants = new Map<string, Tenant>();
    const tenantOf = (name: string) => {
      const tenant = tenants.get(name) ?? new CountingTenant(name, maxRequestsPerKey);
      tenants.set(name, tenant);
      return tenant;
    };
    this.#keys = keys.map(({ name, key }) => ({ hash: digest(key), tenant: tenantOf(name) }));
    this.#anyone = keys.length === 0 ? new CountingTenant(undefined, maxRequestsPerKey) : undefined;
  }

  /** Throws ApiError 401. */
  tenantOf({ authorization, "x-api-key": given }: IncomingHttpHeaders): Tenant {
    if (this.#anyone) return this.#anyone;
    const bearer = /^Bearer +(\S+) *$/i.exec(authorization ?? "")?.[1];
    const key = bearer ?? (typeof given === "string" ? given : undefined);
    const headers = { "www-authenticate": "Bearer" };
    if (key === undefined || key === "") {
      const message = 'no API key was given; send it as "authorization: Bearer KEY" or "x-api-key: KEY"';
      throw new ApiError(401, message, { code: "missing_api_key", headers });
    }
    const hash = digest(key);
    let found: Tenant | undefined;
    // All are compared, however early one is found: time tells nothing.
    for (const each of this.#keys) if (timingSafeEqual(each.hash, hash)) found = each.tenant;
    if (!found) throw new ApiError(401, "this API key is not known", { code: "invalid_api_key", headers });
    return found;
  }
}

/**
 * API keys from text: one a line (or between commas), `KEY` or `NAME KEY`; `#` begins a comment. A key without a name is called by
 * the first digits of its SHA-256. Throws INVALID_OPTION.
 */
export function parseApiKeys(text: string): ApiKey[] {
  const lines = text.split(/[\n,]/).map((line) => line.replace(/(^|\s)#.*/, "").trim());
  return lines
    .filter((line) => line !== "")
    .map((line) => {
      const [first = "", second, ...more] = line.split(/\s+/);
      if (more.length > 0) throw invalidOption("apiKeys", "a line of more than two words", "KEY or NAME KEY");
      const key = second ?? first;
      const name = second === undefined ? `key-${digest(key).toString("hex").slice(0, 8)}` : first;
      if (name.length > bounds.key) throw invalidOption("apiKeys", name, `names of at most ${bounds.key} characters`);
      return { name, key };
    });
}
