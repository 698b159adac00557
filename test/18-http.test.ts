// sdar-engine/http: server-sent events with backpressure, heartbeats and hang-ups, and the status of an error.
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { connect } from "node:net";
import t, { type Test } from "tap";
import { errorCodes, SdarError } from "../lib/errors.js";
import { httpStatusOf, pipeSSE, type SSEOptions, toSSEResponse } from "../lib/http.js";
import type { GenerateRequest, GenerateResult } from "../lib/index.js";
import { eventually } from "./eventually.js";
import { fakeEngine } from "./fake-binding.js";

const letters = (text: string) => [...Buffer.from(text)];

async function service(t: Test, request: GenerateRequest, options?: SSEOptions) {
  const { engine, native } = await fakeEngine({ options: { maxConcurrent: 1, queue: { maxRequests: 0 } } });
  const outcomes: (GenerateResult | SdarError)[] = [];
  const server = createServer(async (_: IncomingMessage, response: ServerResponse) => {
    outcomes.push(await pipeSSE(engine.generate(request), response, options));
  });
  server.listen(0);
  await once(server, "listening");
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { engine, native, outcomes, port, url: `http://localhost:${port}` };
}

t.test("a run as server-sent events", async (t) => {
  const { native, outcomes, url } = await service(t, { tokens: [1], seed: 2n ** 63n });
  const answer = fetch(url);
  await eventually(t, () => native.requests.length, 1);
  const response = await answer;
  t.equal(response.status, 200, "headers come before the first token");
  t.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  native.tokens(1, letters("a\nb"));
  native.wake();
  native.finish(1, "end");
  native.wake();
  const [accepted, text, done, rest] = (await response.text()).split("\n\n");
  t.same([accepted, text, rest], [":", 'data: {"text":"a\\nb"}', ""]);
  t.match(done, /^event: done\ndata: \{"finishReason":"end","usage":\{.*\},"seed":"9223372036854775808"\}$/);
  t.match(outcomes, [{ finishReason: "end", text: "a\nb" }]);
});

t.test("what is refused has a status, and what fails later an event", async (t) => {
  const refused = await service(t, { tokens: [1], temperature: -1 });
  const response = await fetch(refused.url);
  t.equal(response.status, 400);
  t.match(await response.json(), { error: { code: "INVALID_OPTION", option: "temperature" } });
  t.match(refused.outcomes, [{ code: "INVALID_OPTION" }]);

  const { native, url } = await service(t, { tokens: [1], maxTokens: 60 });
  const started = fetch(url);
  await eventually(t, () => native.requests.length, 1);
  native.fail(1, "DEVICE_FAILED", "secret path");
  native.wake();
  const text = await (await started).text();
  t.match(text, /event: error\ndata: \{"error":\{"name":"SdarError","code":"DEVICE_FAILED"/);
  t.notMatch(text, /secret/, "what is not the client's fault stays here");
});

t.test("QUEUE_FULL says when to come again", async (t) => {
  const { url } = await service(t, { tokens: [1], maxTokens: 60 });
  let response = await fetch(url);
  for (let i = 0; i < 2000 && response.status === 200; i++) response = await fetch(url);
  t.equal(response.status, 503);
  t.ok(Number(response.headers.get("retry-after")) >= 1);
});

t.test("hanging up aborts, also before the first token", async (t) => {
  const { native, outcomes, port } = await service(t, { tokens: [1], maxTokens: 60 });
  const client = connect(port, "localhost");
  client.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
  await once(client, "data");
  await eventually(t, () => native.requests.length, 1);
  client.destroy();
  await eventually(t, () => native.aborted.length, 1);
  await eventually(t, () => outcomes.length, 1);
  t.match(outcomes, [{ finishReason: "abort" }]);
});

t.test("a client that does not read holds its own run back", async (t) => {
  const { native, outcomes, port } = await service(t, { tokens: [1], highWaterMark: 4 });
  const client = connect(port, "localhost");
  client.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
  await once(client, "data");
  client.pause();
  await eventually(t, () => native.requests.length, 1);
  for (let i = 0; i < 4000 && native.held.length === 0; i++) {
    native.tokens(1, letters("x".repeat(4096)));
    native.wake();
    if (i % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  t.match(native.held[0], ["pause", 1]);
  client.resume();
  await eventually(t, () => Number(native.held.at(-1)?.[0] === "resume"), 1);
  native.finish(1, "end");
  native.wake();
  await eventually(t, () => outcomes.length, 1);
  t.match(outcomes, [{ finishReason: "end" }]);
});

t.test("heartbeats go while nothing else does", async (t) => {
  const { native, url } = await service(t, { tokens: [1] }, { heartbeatMs: 5, headers: { "x-mine": "1" } });
  const response = await fetch(url);
  t.equal(response.headers.get("x-mine"), "1");
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let seen = "";
  while (!seen.includes(":\n\n:\n\n:\n\n")) seen += (await reader?.read())?.value;
  native.finish(1, "end");
  native.wake();
  for (let part = await reader?.read(); !part?.done; part = await reader?.read()) seen += part?.value;
  t.match(seen, /event: done/);
});

t.test("toSSEResponse: the same as a Response", async (t) => {
  const { engine, native } = await fakeEngine();
  const answered = await toSSEResponse(engine.generate({ tokens: [1] }), { heartbeatMs: 5 });
  t.equal(answered.status, 200);
  native.tokens(1, letters("hi"));
  native.finish(1, "end");
  native.wake();
  t.match(await answered.text(), /data: \{"text":"hi"\}\n\nevent: done/);

  const refused = await toSSEResponse(engine.generate({ tokens: Array(64).fill(1) }));
  t.equal(refused.status, 413);
  t.match(await refused.json(), { error: { code: "PROMPT_TOO_LONG", promptTokens: 64, maxPromptTokens: 63 } });

  const left = await toSSEResponse(engine.generate({ tokens: [1] }));
  await left.body?.cancel();
  t.same(native.aborted, [2]);
});

t.test("every code has a status", (t) => {
  for (const code of errorCodes) {
    const status = httpStatusOf(new SdarError(code, "x"));
    t.ok(status >= 400 && status < 600, `${code}: ${status}`);
  }
  t.equal(httpStatusOf(new SdarError("PROMPT_TOO_LONG", "x")), 413);
  t.equal(httpStatusOf(new SdarError("DEVICE_FAILED", "x")), 500);
  for (const other of [new Error("x"), undefined, { code: "INVALID_OPTION" }]) t.equal(httpStatusOf(other), 500);
  t.end();
});
