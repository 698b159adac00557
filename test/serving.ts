// A server on a free port, for tests.
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import { shippedModelPath } from "../lib/checkpoint.js";
import type { Engine } from "../lib/index.js";
import { createServer, type ServerOptions } from "../lib/server/index.js";
import { sdarTemplate } from "./conversations.js";

export async function serving(t: Test, engine: Engine, options: Partial<ServerOptions> = {}) {
  const server = await createServer({ models: { nano: engine }, ...options });
  const url = await server.listen();
  t.teardown(() => server.close(0));
  const ask = (path: string, body?: unknown, headers: Record<string, string> = {}) =>
    fetch(url + path, {
      ...(body !== undefined && { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) }),
      headers: { ...(body !== undefined && { "content-type": "application/json" }), ...headers },
    });
  return { server, url, ask };
}

/** The shipped model with a chat template that has tools and reasoning. */
export function toolModel(t: Test): string {
  const model = t.testdir({});
  cpSync(shippedModelPath(), model, { recursive: true });
  const config = join(model, "tokenizer_config.json");
  const given = JSON.parse(readFileSync(config, "utf8"));
  writeFileSync(config, JSON.stringify({ ...given, chat_template: sdarTemplate }));
  return model;
}

/** The data of server-sent events. */
export const eventsOf = (text: string): string[] =>
  text
    .split("\n\n")
    .filter((event) => event.startsWith("data: "))
    .map((event) => event.slice("data: ".length));
