// The server's frame: models, errors, keys, limits. Its texts are those of the engine called directly.
import type { AddressInfo } from "node:net";
import t, { type Test } from "tap";
import { Engine } from "../lib/index.js";
import { createServer, parseApiKeys, type ServerOptions } from "../lib/server/index.js";
import { serving as served } from "./serving.js";

const engine = await Engine.load("sdar-nano");
t.teardown(() => engine.dispose());
const messages = [{ role: "user", content: "Count the atoms in Ca3(PO4)2" }];

const serving = (t: Test, options?: Partial<ServerOptions>) => served(t, engine, options);

t.test("a conversation is answered as the engine answers it", async (t) => {
  const { ask } = await serving(t);
  const direct = await engine.generate({ messages }).result();
  const response = await ask("/v1/chat/completions", { model: "nano", messages });
  t.equal(response.status, 200);
  t.match(await response.json(), {
    object: "chat.completion",
    model: "nano",
    choices: [{ index: 0, finish_reason: "stop", message: { role: "assistant", content: direct.text } }],
    usage: { prompt_tokens: direct.usage.promptTokens, completion_tokens: direct.usage.completionTokens },
  });
});

t.test("models are listed, and known by name alone", async (t) => {
  const { ask } = await serving(t, { models: { nano: engine, "org/other": "sdar-nano" } });
  t.match(await (await ask("/v1/models/nano")).json(), { id: "nano", object: "model", max_model_len: 1024 });
  const missing = await ask("/v1/models/none");
  t.equal(missing.status, 404);
  t.match(await missing.json(), { error: { code: "model_not_found", param: "model" } });
  const unnamed = await ask("/v1/chat/completions", { messages });
  t.equal(unnamed.status, 400, "with two models, one must be named");
  t.match(await unnamed.json(), { error: { param: "model", type: "invalid_request_error" } });
});

t.test("a model that is being loaded is told apart from one that is not there", async (t) => {
  const { ask, server } = await serving(t, { models: { nano: "sdar-nano" } });
  const early = await ask("/ready");
  if (early.status === 503) t.match(await early.json(), { error: { code: "model_loading" } });
  await server.loaded;
  t.equal((await ask("/ready")).status, 200);
  t.equal((await ask("/v1/chat/completions", { messages })).status, 200);
  const broken = await createServer({ models: { nano: t.testdir({ "config.json": "{}" }) } });
  t.teardown(() => broken.close(0));
  await t.rejects(broken.loaded, { name: "SdarError" });
  const answer = await broken.app.inject({ method: "POST", url: "/v1/chat/completions", payload: { messages } });
  t.equal(answer.statusCode, 503);
  t.match(answer.json(), { error: { code: "model_failed", type: "server_error" } });
  t.notMatch(answer.body, /config\.json/, "paths of this machine stay here");
});

t.test("errors have OpenAI's shape, whoever finds them", async (t) => {
  const { ask, url } = await serving(t, { bodyLimit: 1000 });
  const refused = async (status: number, error: object, response: Response) => {
    t.equal(response.status, status);
    t.match(response.headers.get("content-type"), "application/json");
    const body = (await response.json()) as { error: object };
    t.match(body, { error });
    t.same(Object.keys(body.error), ["message", "type", "param", "code"]);
    t.match(response.headers.get("x-request-id"), /^req_/);
  };
  const chat = (body: unknown) => ask("/v1/chat/completions", body);
  await refused(404, { code: "not_found" }, await ask("/v2/nothing"));
  await refused(405, { message: /use POST/ }, await ask("/v1/chat/completions"));
  await refused(405, { message: /use GET/ }, await ask("/v1/models", {}));
  await refused(413, { code: "request_too_large" }, await chat({ messages, padding: "x".repeat(1000) }));
  await refused(400, { message: "the body is not valid JSON" }, await chat('{"messages": [secret'));
  await refused(400, { message: "the body must be a JSON object" }, await chat("[]"));
  await refused(400, { code: "invalid_json" }, await chat('{"messages":[],"__proto__":{"x":1}}'));
  await refused(
    415,
    { message: /application\/json/ },
    await fetch(`${url}/v1/chat/completions`, { method: "POST", body: "x" }),
  );
  await refused(400, { param: "messages" }, await chat({}));
  await refused(
    400,
    { param: "messages[0].content[0].type" },
    await chat({ messages: [{ role: "user", content: [{ type: "image_url" }] }] }),
  );
  await refused(400, { param: "top_p", message: /^top_p: 2 is not allowed/ }, await chat({ messages, top_p: 2 }));
  await refused(400, { param: "sdar.threshold" }, await chat({ messages, sdar: { threshold: 7 } }));
  await refused(400, { param: "sdar" }, await chat({ messages, sdar: { treshold: 0.5 } }));
  await refused(400, { param: "max_completion_tokens" }, await chat({ messages, max_completion_tokens: 0 }));
  await refused(
    400,
    { param: "modalities", code: "unsupported_parameter" },
    await chat({ messages, modalities: ["audio"] }),
  );
  await refused(404, { code: "model_not_found" }, await chat({ model: "gpt-4o", messages }));
  const long = await serving(t);
  const flood = { messages: [{ role: "user", content: "x ".repeat(5000) }] };
  await refused(400, { code: "context_length_exceeded" }, await long.ask("/v1/chat/completions", flood));
});

t.test("API keys: who has none is refused", async (t) => {
  const apiKeys = parseApiKeys("# keys\nalice sk-one # hers\nsk-two, bob sk-three\n");
  t.match(apiKeys, [{ name: "alice", key: "sk-one" }, { name: /^key-\w{8}$/, key: "sk-two" }, { name: "bob" }]);
  t.throws(() => parseApiKeys("a b c"), { code: "INVALID_OPTION" });
  const { ask } = await serving(t, { apiKeys });
  const status = async (headers: Record<string, string>) => (await ask("/v1/models", undefined, headers)).status;
  t.equal(await status({}), 401);
  t.equal(await status({ authorization: "Bearer sk-four" }), 401);
  t.equal(await status({ authorization: "Basic sk-one" }), 401);
  t.equal(await status({ authorization: "Bearer sk-one" }), 200);
  t.equal(await status({ "x-api-key": "sk-two" }), 200);
  t.equal((await ask("/health")).status, 200, "who watches needs none");
  const refused = await ask("/v1/chat/completions", { messages });
  t.match(await refused.json(), { error: { code: "missing_api_key", type: "authentication_error" } });
  const keys: unknown[] = [];
  engine.once("finished", ({ key }) => keys.push(key));
  t.equal((await ask("/v1/chat/completions", { messages }, { authorization: "Bearer sk-three" })).status, 200);
  t.same(keys, ["bob"], "each is a tenant of the engine");
});

t.test("requests have names", async (t) => {
  const { ask } = await serving(t);
  const id = async (given: string) =>
    (await ask("/health", undefined, { "x-request-id": given })).headers.get("x-request-id");
  t.equal(await id("mine-1.2"), "mine-1.2");
  t.match(await id("two words"), /^req_\w{32}$/, "what is no plain word is not repeated");
  t.match(await id("x".repeat(200)), /^req_/);
});

t.test("pages of other origins may ask only where that is wanted", async (t) => {
  const closed = await serving(t);
  const page = { origin: "https://page.example" };
  t.equal((await closed.ask("/v1/models", undefined, page)).headers.get("access-control-allow-origin"), null);
  const { url, ask } = await serving(t, { cors: ["https://page.example"], apiKeys: parseApiKeys("sk") });
  t.equal((await ask("/health", undefined, page)).headers.get("access-control-allow-origin"), "https://page.example");
  t.equal((await ask("/health", undefined, { origin: "https://b" })).headers.get("access-control-allow-origin"), null);
  const preflight = await fetch(`${url}/v1/chat/completions`, {
    method: "OPTIONS",
    headers: { ...page, "access-control-request-method": "POST", "access-control-request-headers": "x-stainless-os" },
  });
  t.equal(preflight.status, 204, "before a page has sent its key");
  t.match(preflight.headers.get("access-control-allow-headers"), /authorization.*x-stainless-os/);
});

t.test("a service mounts it twice, each with its own models and metrics", async (t) => {
  const { fastify } = await import("fastify");
  const { sdarPlugin } = await import("../lib/server/index.js");
  const app = fastify();
  app.get("/", async () => "the service's own");
  await app.register(sdarPlugin, { prefix: "/a", models: { one: engine } });
  await app.register(sdarPlugin, { prefix: "/b", models: { two: engine } });
  t.teardown(() => app.close());
  await app.listen({ port: 0 });
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
  t.equal(await (await fetch(url)).text(), "the service's own");
  t.match(await (await fetch(`${url}/a/v1/models`)).json(), { data: [{ id: "one" }] });
  t.match(await (await fetch(`${url}/b/metrics`)).text(), /vllm:num_requests_running\{model_name="two"\} 0/);
  t.match(await (await fetch(`${url}/b/nothing`)).json(), { error: { code: "not_found" } });
  t.match(await (await fetch(`${url}/nothing`)).json(), { statusCode: 404 }, "the service's own");
});
