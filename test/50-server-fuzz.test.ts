// Bodies made from what /openapi.json says they may have, then spoiled: each gets a well-formed answer or error, and its own.
import { connect } from "node:net";
import { text as textOf } from "node:stream/consumers";
import t from "tap";
import { Random } from "../lib/bench/random.js";
import { Engine } from "../lib/index.js";
import { eventually } from "./eventually.js";
import { serving } from "./serving.js";

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
type Schema = { [keyword: string]: unknown };
type Completion = { choices: [{ message: { content: string } }] };
type Objects = { [name: string]: Json };

const count = process.env.SDAR_TEST_FULL ? 5000 : 1000;
const atATime = 16;

const words = [
  "",
  "a",
  "31 x 7",
  "user",
  "assistant",
  "\ud800",
  "\u0000\u001b[2J",
  "<|im_end|>",
  "__proto__",
  "名前",
  "x".repeat(5000),
];
const junk: readonly Json[] = [
  null,
  true,
  -1,
  0,
  1.5,
  1e308,
  2 ** 53,
  ...words,
  [],
  {},
  [[[[]]]],
  { a: { a: { a: [] } } },
  Array(300).fill("a"),
];

/** A value that a schema allows, or nearly. */
function valueBy(random: Random, schema: Schema, depth: number): Json {
  const choices = (schema.anyOf ?? schema.oneOf) as Schema[] | undefined;
  if (choices) return valueBy(random, random.of(choices), depth);
  if (schema.const !== undefined) return schema.const as Json;
  if (schema.enum) return random.of(schema.enum as Json[]);
  const type = Array.isArray(schema.type) ? random.of(schema.type as string[]) : schema.type;
  if (type === "object") return objectOf(random, schema, depth);
  if (type === "array") {
    const items = (schema.items ?? {}) as Schema;
    return depth > 5 ? [] : random.times(random.whole(0, 3), () => valueBy(random, items, depth + 1));
  }
  if (type === "string") return random.of(words);
  if (type === "boolean") return random.maybe(0.5);
  if (type === "integer" || type === "number") return random.of([0, 1, 2, 0.5, 7, -1]);
  if (type === "null") return null;
  return depth > 5 ? null : structuredClone(random.of(junk));
}

function objectOf(random: Random, schema: Schema, depth: number): Objects {
  const required = new Set((schema.required ?? []) as string[]);
  const made: Objects = {};
  for (const [name, member] of Object.entries((schema.properties ?? {}) as Record<string, Schema>)) {
    if (required.has(name) || random.maybe(depth === 0 ? 0.15 : 0.5)) made[name] = valueBy(random, member, depth + 1);
  }
  return made;
}

/** All objects and lists in a value. */
function holders(value: Json): (Json[] | Objects)[] {
  if (typeof value !== "object" || value === null) return [];
  return [value, ...Object.values(value).flatMap(holders)];
}

/** With some of it replaced, renamed, repeated or left out. */
function spoiled(random: Random, body: Objects): Objects {
  const copy = structuredClone(body);
  for (let times = random.whole(0, 3); times > 0; times--) {
    const holder = random.of(holders(copy)) as Objects;
    const names = Object.keys(holder);
    const name = names.length > 0 ? random.of(names) : "a";
    const act = random.whole(0, 3);
    if (act === 0) holder[name] = structuredClone(random.of(junk));
    else if (act === 1 && !Array.isArray(holder)) delete holder[name];
    else if (act === 2 && !Array.isArray(holder)) holder[`${name}_`] = holder[name] ?? null;
    else holder[name] = [holder[name] ?? null, structuredClone(random.of(junk))];
  }
  return copy;
}

/** What a conversation or a text must have for the rest to be looked at. */
const sound: Record<string, Objects> = {
  "/v1/chat/completions": { messages: [{ role: "user", content: "31 x 7" }], max_tokens: 3 },
  "/v1/completions": { prompt: "31 x 7", max_tokens: 3 },
  "/v1/responses": { input: "31 x 7", max_output_tokens: 3 },
  "/v1/messages": { messages: [{ role: "user", content: "31 x 7" }], max_tokens: 3 },
};

const wellFormed = {
  openai: { error: { message: /./, type: /./ } },
  anthropic: { type: "error", error: { message: /./, type: /./ } },
};
const errorOf = (path: string) => wellFormed[path.startsWith("/v1/messages") ? "anthropic" : "openai"];

t.test("whatever a body holds, it is answered or refused in the protocol's words", async (t) => {
  const engine = await Engine.load("sdar-nano", { maxConcurrent: 8, generate: { maxTokens: 4 } });
  t.teardown(() => engine.dispose());
  const { ask } = await serving(t, engine, { deadlineMs: 20_000 });
  const { paths } = (await (await ask("/openapi.json")).json()) as { paths: Record<string, { post?: Schema }> };
  const bodies = Object.entries(paths).flatMap(([path, { post }]) => {
    if (!post) return [];
    const { content } = post.requestBody as { content: { "application/json": { schema: Schema } } };
    return [{ path, schema: content["application/json"].schema }];
  });
  t.ok(bodies.length >= 6);

  const question = { messages: [{ role: "user", content: "31 x 7" }], max_tokens: 20 };
  const answer = async () => {
    const { choices } = (await (await ask("/v1/chat/completions", question)).json()) as Completion;
    return choices[0].message.content;
  };
  const own = await answer();
  const statuses: Record<number, number> = {};
  async function one(seed: number) {
    const random = new Random(seed);
    const { path, schema } = random.of(bodies);
    const made = valueBy(random, schema, 0) as Objects;
    const body = JSON.stringify(spoiled(random, random.maybe(0.7) ? { ...made, ...sound[path] } : made));
    const cut = random.maybe(0.1) ? body.slice(0, random.whole(0, body.length - 1)) : body;
    const response = await ask(path, cut);
    const what = `seed ${seed}: POST ${path} ${cut.slice(0, 500)}`;
    const text = await response.text();
    statuses[response.status] = (statuses[response.status] ?? 0) + 1;
    if (response.status === 200) {
      if (!response.headers.get("content-type")?.startsWith("text/event-stream"))
        t.type(JSON.parse(text), "object", what);
      return;
    }
    t.ok([400, 404, 413, 429].includes(response.status), `${response.status} ${text.slice(0, 200)}: ${what}`);
    t.match(JSON.parse(text), errorOf(path), what);
    t.notMatch(text, /Invalid input|Unrecognized/, "the words of a library");
  }
  let next = 0;
  const clients = Array.from({ length: atATime }, async () => {
    while (next < count) await one(next++);
  });
  const others = Array.from({ length: 20 }, async () => {
    t.equal(await answer(), own);
  });
  await Promise.all([...clients, ...others]);
  t.comment(statuses);
  t.ok((statuses[200] ?? 0) > count / 20, "not all are refused");
  t.ok((statuses[400] ?? 0) > count / 4);
  t.equal((await ask("/health")).status, 200);
  await eventually(t, () => engine.stats(), { running: 0, waiting: 0 });
});

t.test("bytes that are cut, changed or repeated end in an answer or a closed connection", async (t) => {
  const engine = await Engine.load("sdar-nano", { generate: { maxTokens: 4 } });
  t.teardown(() => engine.dispose());
  const { url, ask } = await serving(t, engine, { requestTimeoutMs: 300 });
  const random = new Random(7);
  const body = JSON.stringify(sound["/v1/chat/completions"]);
  const head = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n`;
  const whole = Buffer.from(`${head}content-length: ${body.length}\r\n\r\n${body}`);
  async function one() {
    const bytes = Buffer.from(whole);
    for (let times = random.whole(1, 4); times > 0; times--)
      bytes[random.whole(0, bytes.length - 1)] = random.whole(0, 255);
    const end = random.maybe(0.3) ? random.whole(1, bytes.length) : bytes.length;
    const sent = bytes.subarray(0, end);
    const socket = connect(Number(new URL(url).port), "127.0.0.1");
    socket.on("error", () => {}); // reset while we write
    socket.end(random.maybe(0.2) ? Buffer.concat([sent, whole]) : sent);
    const answer = await textOf(socket).catch(() => "");
    t.match(answer, /^$|^HTTP\/1\.1 (200|400|404|405|408|413|415|431|501|505) /, sent.toString("latin1"));
  }
  let left = count / 5;
  await Promise.all(
    Array.from({ length: atATime }, async () => {
      while (left-- > 0) await one();
    }),
  );
  t.equal((await ask("/health")).status, 200);
  await eventually(t, () => engine.stats(), { running: 0, waiting: 0 });
});
