// sdar serve: models over HTTP, for clients of OpenAI's API.
import { Command, InvalidArgumentError } from "commander";
import { readOptional, shippedModel } from "../checkpoint.js";
import { defined } from "../defined.js";
import { invalidOption, SdarError } from "../errors.js";
import type { ServerOptions } from "../server/app.js";
import type { ApiKey } from "../server/auth.js";
import type { ModelToLoad } from "../server/models.js";
import type { LoadOptions } from "../types.js";
import { type EngineFlags, engineOptions, withEngineFlags } from "./engine-flags.js";
import { collect } from "./generation.js";
import { onInterrupt } from "./signals.js";

interface Flags extends EngineFlags {
  port: number;
  host: string;
  prefix?: string;
  page: boolean;
  model?: Record<string, string>;
  draft?: Record<string, string>;
  apiKeys?: string;
  maxRequestsPerKey?: number;
  sharePrefixes?: boolean;
  cors?: string[];
  bodyLimit?: number;
  timeout?: number;
  requestTimeout?: number;
  keepAlive?: number;
  grace?: number;
  logLevel: NonNullable<ServerOptions["logLevel"]>;
  queue?: number;
}

export function serveCommand(): Command {
  const command = new Command("serve")
    .description("Serves models over HTTP, for clients of OpenAI's API")
    .optionsGroup("Models:")
    .option(
      "-m, --model <name=folder>",
      `a checkpoint folder or hub id, by the name that clients know it by; may be repeated (default: ${shippedModel})`,
      pair,
    )
    .option("--draft <name=folder>", "an SDAR checkpoint that drafts for the autoregressive model of that name", pair)
    .optionsGroup("Address:")
    .option("-p, --port <n>", "port to listen on; 0 for any that is free", whole, 8000)
    .option("--host <address>", "address to listen on: 0.0.0.0 for all of this machine's", "127.0.0.1")
    .option("--prefix <path>", "path in front of all endpoints")
    .option("--no-page", "without the playground at /, a page for browsers")
    .option("--cors <origin>", "origin whose pages may ask, * for all; may be repeated (default: none)", collect)
    .optionsGroup("Limits:")
    .option(
      "--api-keys <file>",
      "file of API keys, KEY or NAME KEY a line (default: $SDAR_API_KEYS, else anyone may ask)",
    )
    .option("--max-requests-per-key <n>", "requests that one key may have at a time (default: no limit)", whole)
    .option("--share-prefixes", "keys share cached prefixes, whose speed then tells what others asked")
    .option("--body-limit <bytes>", "bytes that a request's body may have (default: 2097152)", whole)
    .option("--timeout <ms>", "milliseconds within which an answer must be there (default: no limit)", whole)
    .option("--request-timeout <ms>", "milliseconds within which a request must have arrived (default: 60000)", whole)
    .option("--keep-alive <ms>", "milliseconds for which an idle connection stays open (default: 75000)", whole)
    .option("--grace <ms>", "milliseconds for which SIGTERM waits for what is being answered (default: 30000)", whole)
    .option("--queue <n>", "most completions that wait; beyond it clients get 429 (default: 4096)", whole);
  return withEngineFlags(command)
    .optionsGroup("Output:")
    .option("--log-level <level>", "silent, error, warn, info (a line for each request) or debug, as JSON", "warn")
    .addHelpText(
      "after",
      `\nExamples:\n  sdar serve\n  sdar serve --port 8080 --model chat=models/my-checkpoint --api-keys keys.txt\n  curl localhost:8000/v1/completions -H 'content-type: application/json' -d '{"prompt":"31 x 7"}'`,
    )
    .action(serve);
}

async function serve(flags: Flags): Promise<void> {
  const stopped = new Promise<"stopped">((resolve) => {
    onInterrupt(() => resolve("stopped"), ["SIGINT", "SIGTERM"]);
  });
  const options = await optionsOf(flags);
  // With what it needs: other commands do without.
  const { createServer } = await import("../server/index.js");
  const server = await createServer(options);
  try {
    const address = await server.listen({ port: flags.port, host: flags.host });
    const models = server.models.join(", ");
    const ready = server.loaded.then(() => process.stdout.write(`sdar serve: ${models} at ${address}\n`));
    await Promise.race([Promise.all([ready, stopped]), stopped]);
  } finally {
    await server.close(flags.grace);
  }
}

async function optionsOf(flags: Flags): Promise<ServerOptions> {
  const { maxRequestsPerKey, sharePrefixes, cors, bodyLimit, grace: graceMs, logLevel, prefix, page } = flags;
  return {
    models: modelsOf(flags),
    apiKeys: await apiKeysOf(flags.apiKeys),
    logLevel,
    page,
    ...defined({ maxRequestsPerKey, sharePrefixes, cors, bodyLimit, graceMs, prefix }),
    ...defined({ deadlineMs: flags.timeout, requestTimeoutMs: flags.requestTimeout, keepAliveMs: flags.keepAlive }),
  };
}

function modelsOf({ model, draft = {}, ...flags }: Flags): Record<string, ModelToLoad> {
  const models = model ?? { [shippedModel]: shippedModel };
  const drafted = Object.keys(draft).find((name) => !Object.hasOwn(models, name));
  if (drafted !== undefined) throw invalidOption("--draft", drafted, `one of ${Object.keys(models).join(", ")}`);
  const options: LoadOptions = {
    ...engineOptions(flags),
    ...(flags.queue !== undefined && { queue: { maxRequests: flags.queue } }),
    log: (level, message) => void (level === "warn" && process.stderr.write(`sdar: ${message}\n`)),
  };
  const entries = Object.entries(models).map(([name, path]) => {
    const own = draft[name];
    return [name, { path, ...options, ...(own !== undefined && { draft: own }) }] as const;
  });
  return Object.fromEntries(entries);
}

/** An empty list would let anyone in: whoever names a file wants to keep somebody out. */
async function apiKeysOf(file: string | undefined): Promise<ApiKey[]> {
  const { SDAR_API_KEYS: given } = process.env;
  const text = file === undefined ? given : readOptional(file);
  if (file !== undefined && text === undefined) throw new SdarError("FILE_NOT_FOUND", `no file ${file} of API keys`);
  if (text === undefined) return [];
  const { parseApiKeys } = await import("../server/index.js");
  const keys = parseApiKeys(text);
  if (keys.length === 0) throw invalidOption(file ?? "SDAR_API_KEYS", "no key", "at least one");
  return keys;
}

function pair(text: string, all: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf("=");
  const [name, path] = at < 0 ? [text, text] : [text.slice(0, at), text.slice(at + 1)];
  if (name === "" || path === "") throw new InvalidArgumentError("Give NAME=FOLDER.");
  if (Object.hasOwn(all, name)) throw new InvalidArgumentError(`The name ${name} was given already.`);
  return { ...all, [name]: path };
}

function whole(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError("It is not a whole number.");
  return Number(text);
}
