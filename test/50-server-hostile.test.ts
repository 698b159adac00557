// What strangers may send: malformed, too large, too slow, cut off, pipelined. It is answered or refused; the server goes on.
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { text as textOf } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { Engine } from "../lib/index.js";
import { parseApiKeys } from "../lib/server/index.js";
import { eventually } from "./eventually.js";
import { eventsOf, serving } from "./serving.js";

const engine = await Engine.load("sdar-nano", { maxConcurrent: 4, queue: { maxRequests: 0 } });
t.teardown(() => engine.dispose());
const messages = [{ role: "user", content: "Count the atoms in Ca3(PO4)2" }];
const path = "/v1/chat/completions";
/** runs until the context is full */
const long = { messages, stream: true, ignore_eos: true, sdar: { strategy: "sequential" } };

const dial = (url: string): Socket => connect(Number(new URL(url).port), "127.0.0.1");

/** A request as bytes. */
function request(body: string | Buffer, headers: Record<string, string | number> = {}): Buffer {
  const all = {
    host: "x",
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.concat([Buffer.from(`POST ${path} HTTP/1.1\r\n${lines.join("")}\r\n`), Buffer.from(body)]);
}

/** What a server answers to bytes, until it or the client ends the connection. */
async function raw(url: string, bytes: string | Buffer): Promise<string> {
  const socket = dial(url);
  socket.write(bytes);
  return textOf(socket);
}

t.test("what is no request is refused in words", async (t) => {
  const { url, ask } = await serving(t, engine, { requestTimeoutMs: 1000 });
  const refused = async (bytes: string | Buffer, status: number) => {
    const answer = await raw(url, bytes);
    t.match(answer, new RegExp(`^HTTP/1.1 ${status} `));
    t.match(JSON.parse(answer.slice(answer.indexOf("\r\n\r\n") + 4)), { error: { message: String, type: String } });
  };
  await refused("nonsense\r\n\r\n", 400);
  await refused(`GET / HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(20_000)}\r\n\r\n`, 431);
  await refused("GET /%zz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 400);
  await refused(request("{}", { "content-length": -5 }), 400);
  await refused(request("{}", { connection: "close", "content-encoding": "gzip", "content-type": "text/html" }), 415);
  await refused(request("", { connection: "close" }), 400);
  t.equal((await ask("/health")).status, 200);
});

t.test("a request that does not come is not waited for", async (t) => {
  const { url } = await serving(t, engine, { requestTimeoutMs: 300 });
  for (const bytes of [60, 120]) {
    // Of the headers, and of the body.
    const whole = request(JSON.stringify({ messages }));
    const answer = await raw(url, whole.subarray(0, whole.length - bytes));
    t.match(answer, /^HTTP\/1.1 408 .*"error":\{"message":"the request did not arrive in time"/s);
  }
  const cut = dial(url);
  cut.write(request("x".repeat(1000)).subarray(0, 300));
  await once(cut, "connect");
  cut.destroy();
  t.equal((await fetch(`${url}/health`)).status, 200);
});

t.test("bodies of every kind get an answer, and none stops the server", async (t) => {
  const { ask } = await serving(t, engine, { bodyLimit: 2 ** 20 });
  const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;
  const cases: [string, number][] = [
    [nested(100_000), 400],
    [`{"messages":${nested(90)}}`, 400],
    [`{"messages":[${"{},".repeat(200_000)}{}]}`, 400],
    [`{"messages":[],"metadata":{${Array.from({ length: 60_000 }, (_, i) => `"k${i}":1`).join(",")}}}`, 400],
    [`{"messages":"${"x".repeat(2 ** 20)}"}`, 413],
    ['{"messages":[{"role":"user","content":"\\ud800"}],"max_tokens":1}', 200],
    ['{"messages":[{"role":"user","content":"x","__proto__":{"role":"system"}}]}', 400],
    ['{"messages":[{"role":"user","content":"x"}],"constructor":{"prototype":{"stream":true}},"max_tokens":1}', 200],
    ['{"messages":[{"role":"user","content":"x"}],"stop":["",""]}', 400],
    ['{"messages":[{"role":"user","content":"x"}],"n":1e9}', 400],
    ['{"messages":[{"role":"user","content":"x"}],"logit_bias":{"a":1}}', 400],
    ['{"messages":[{"role":"user","content":"x"}],"seed":1.5}', 400],
    ['{"messages":[{"role":"user","content":"x"}],"temperature":1e999}', 400],
    ['{"messages":[{"role":"user","content":"x"}],"stream":"yes"}', 400],
    ['{"messages":[{"role":"\\u0000","content":"\\u001b[2J"}],"max_tokens":1}', 200],
    ["null", 400],
    ['"text"', 400],
    ["", 400],
    ["\ufeff{}", 400],
  ];
  for (const [body, wanted] of cases) {
    const response = await ask(path, body);
    const answer = (await response.json()) as { error?: { message: string } };
    t.equal(response.status, wanted, `${body.slice(0, 60)}: ${answer.error?.message}`);
    t.ok(wanted === 200 || (answer.error && answer.error.message !== ""));
  }
  t.equal(({} as { stream?: unknown }).stream, undefined, "no prototype was changed");
  for (const ids of [Array(200_000).fill(1), Array(1000).fill("x"), [[1], "a", [[2]]]]) {
    t.equal((await ask("/v1/completions", { prompt: ids })).status, 400);
  }
});

t.test("pipelined requests are answered in order, each with its own text", async (t) => {
  const { url } = await serving(t, engine);
  const contents = ["31 x 7", "Sort: 5 4 3"];
  const bodies = contents.map((content) => JSON.stringify({ messages: [{ role: "user", content }], max_tokens: 20 }));
  const last = request(bodies[1] as string, { connection: "close" });
  const answers = await raw(url, Buffer.concat([request(bodies[0] as string), last]));
  const texts = [...answers.matchAll(/\r\n\r\n(\{.*?\}\}\})/gs)].map(
    ([, json]) => JSON.parse(json as string).choices[0].message.content,
  );
  const direct = contents.map((content) =>
    engine.generate({ messages: [{ role: "user", content }], maxTokens: 20 }).text(),
  );
  t.same(texts, await Promise.all(direct));
});

t.test("a client that hangs up frees what it had, also where its request waits behind another", async (t) => {
  const { url } = await serving(t, engine);
  const socket = dial(url);
  socket.write(Buffer.concat([request(JSON.stringify(long)), request(JSON.stringify(long))]));
  await once(socket, "data");
  await eventually(t, () => engine.stats(), { running: 2 });
  socket.destroy();
  await eventually(t, () => engine.stats(), { running: 0, waiting: 0 });
  const { free, cached, total } = engine.stats().pages;
  t.equal(free + cached, total, "all pages are back");
});

t.test("a client that does not read is cut off, and costs nobody else anything", async (t) => {
  const slow = await Engine.load("sdar-nano", { queue: { heldMs: 200 } });
  t.teardown(() => slow.dispose());
  const { url, ask } = await serving(t, slow, { stallMs: 300 });
  const socket = dial(url);
  // So much that no buffer of the system takes all of it.
  const loud = { ...long, n: 32, logprobs: true, top_logprobs: 20, sdar: { ...long.sdar, tokens: true } };
  socket.write(request(JSON.stringify(loud)));
  await once(socket, "data");
  socket.pause();
  const other = await ask(path, { messages });
  t.equal(other.status, 200);
  await eventually(t, () => slow.stats(), { running: 0, paused: 0, waiting: 0 });
  socket.destroy();
});

t.test("a full queue says when to come again", async (t) => {
  const { ask } = await serving(t, engine);
  const taken: Response[] = [];
  t.teardown(() => Promise.all(taken.map(({ body }) => body?.cancel())));
  let response = await ask(path, long);
  for (let i = 0; i < 200 && response.status === 200; i++) {
    taken.push(response);
    response = await ask(path, long);
  }
  t.equal(response.status, 429);
  t.ok(Number(response.headers.get("retry-after")) >= 1);
  t.match(await response.json(), { error: { code: "queue_full", type: "rate_limit_error" } });
});

t.test("what takes too long is told so, before the stream and in it", async (t) => {
  const { ask } = await serving(t, engine, { deadlineMs: 60 });
  await eventually(t, () => engine.stats(), { running: 0, waiting: 0 });
  const whole = await ask(path, { ...long, stream: false });
  t.equal(whole.status, 504);
  t.match(await whole.json(), { error: { code: "deadline_exceeded", type: "server_error" } });
  const streamed = await ask(path, { ...long, n: 4, sdar: { ...long.sdar, deadline: 600_000 } });
  const text = await streamed.text();
  // On a machine so busy that the request was not even accepted in time, there is no stream.
  const last = streamed.status === 200 ? (eventsOf(text).at(-1) ?? "") : text;
  t.match(JSON.parse(last), { error: { code: "deadline_exceeded" } }, "an event, and no [DONE]");
});

t.test("a key has no more requests at a time than it may", async (t) => {
  const { ask } = await serving(t, engine, { apiKeys: parseApiKeys("a ka, b kb"), maxRequestsPerKey: 1 });
  await eventually(t, () => engine.stats(), { running: 0, waiting: 0 });
  const as = (key: string) => ({ authorization: `Bearer ${key}` });
  const first = await ask(path, long, as("ka"));
  const second = await ask(path, { messages }, as("ka"));
  t.equal(second.status, 429);
  t.match(await second.json(), { error: { code: "too_many_requests" } });
  t.equal((await ask(path, { messages }, as("kb"))).status, 200, "others are not concerned");
  await first.body?.cancel();
  for (let i = 0; i < 100 && (await ask(path, { messages }, as("ka"))).status !== 200; i++) await sleep(20);
  t.equal((await ask(path, { messages }, as("ka"))).status, 200);
});

t.test("comments keep a stream open that says nothing", async (t) => {
  const { ask } = await serving(t, engine, { heartbeatMs: 5 });
  await eventually(t, () => engine.stats(), { running: 0, waiting: 0 });
  const text = await (await ask(path, { messages, stream: true })).text();
  t.match(text.replaceAll(/data: .*\n\n/g, ""), /^(:\n\n)*$/, "nothing else than comments and data");
  t.equal(eventsOf(text).at(-1), "[DONE]");
});
