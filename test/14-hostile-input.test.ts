// Whatever is passed in, what comes back is an SdarError that says so, and nothing that is given out can be changed.
import { runInNewContext } from "node:vm";
import t from "tap";
import { Engine, type GenerateOptions, type GenerateRequest, type LoadOptions, SdarError } from "../lib/index.js";
import { bounds } from "../lib/limits.js";
import { fakeEngine } from "./fake-binding.js";

const thrower = (thrown: unknown) =>
  Object.defineProperty({}, "prompt", {
    enumerable: true,
    get() {
      throw thrown;
    },
  });
const fail = () => {
  throw new Error("no");
};
const revoked = () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};
const cyclic = () => {
  const list: unknown[] = [];
  list.push(list);
  return list;
};
const detached = () => {
  const ids = new Int32Array(4);
  structuredClone(ids.buffer, { transfer: [ids.buffer] });
  return ids;
};

t.test("requests that cannot be read, or are something else", async (t) => {
  const { engine } = await fakeEngine();
  const hostile: Record<string, unknown> = {
    "a getter that throws": thrower(new Error("no")),
    "one that throws nothing much": thrower(undefined),
    "one that throws what cannot be shown": thrower({ toString: null, message: Symbol("x") }),
    "a revoked proxy": revoked(),
    "a promise": Promise.resolve({ prompt: "a" }),
    "a map": new Map([["prompt", "a"]]),
    "a cyclic list": { tokens: [1], stop: cyclic() },
    "a promise inside": { tokens: [1], cache: Promise.resolve() },
    "a set of biases": { tokens: [1], logitBias: new Set([1]) },
    "a promise of biases": { tokens: [1], logitBias: Promise.resolve({}) },
    "a proxied list": { tokens: [1], stopTokens: new Proxy([1], { get: () => fail() }) },
    "a list that was transferred away": { tokens: [1], stopTokens: detached() },
    "a list without end": { tokens: [1], stopTokens: { length: Number.POSITIVE_INFINITY } },
  };
  for (const [what, request] of Object.entries(hostile)) {
    const error = await engine
      .generate(request as GenerateRequest)
      .result()
      .then(
        () => undefined,
        (e) => e,
      );
    t.ok(error instanceof SdarError && error.code === "INVALID_OPTION", `${what}: ${error?.code} ${error?.message}`);
  }
});

t.test("load options of the same kinds, and paths that are none", async (t) => {
  const load = (path: unknown, options?: unknown) => Engine.load(path as string, options as LoadOptions);
  for (const path of ["a\0b", "x".repeat(100_000), "", 3, revoked(), Symbol("path")])
    await t.rejects(load(path), { name: "SdarError", code: "INVALID_OPTION" });
  for (const options of [
    Promise.resolve({}),
    thrower(1),
    revoked(),
    { weightCache: "a\0" },
    { isa: "x".repeat(1e5) },
    3,
  ])
    await t.rejects(load("sdar-nano", options), { name: "SdarError", code: "INVALID_OPTION" });
});

t.test("maps, lists and signals of another realm are what they are", async (t) => {
  const { engine, native } = await fakeEngine();
  engine.generate({ tokens: runInNewContext("[1, 2]"), logitBias: runInNewContext("new Map([[7, 1], [3, 2]])") });
  engine.generate({ tokens: runInNewContext("Uint32Array.of(1, 2)"), logitBias: runInNewContext("({ 5: 1 })") });
  t.same(
    native.requests.map(({ biasIds }) => [...biasIds]),
    [[3, 7], [5]],
  );
  t.same(
    native.requests.map(({ tokens }) => [...tokens]),
    [
      [1, 2],
      [1, 2],
    ],
  );
});

t.test("what looks like a signal is none", async (t) => {
  const { engine } = await fakeEngine();
  const ducks = [
    { aborted: false, addEventListener() {} },
    { aborted: false, addEventListener() {}, removeEventListener() {} },
    Object.create(AbortSignal.prototype),
    new Proxy(new AbortController().signal, {}),
    new EventTarget(),
  ];
  for (const signal of ducks) {
    await t.rejects(engine.generate({ tokens: [1], signal }).result(), { code: "INVALID_OPTION", option: "signal" });
    await t.rejects(Engine.load("sdar-nano", { signal }), { code: "INVALID_OPTION", option: "signal" });
  }
});

t.test("every list and text has a bound, and the error names it", async (t) => {
  const { engine, native } = await fakeEngine({ info: { vocabSize: 2000 } });
  const many = (n: number) => Array.from({ length: n }, (_, i) => i);
  const biases = (n: number) => Object.fromEntries(many(n).map((id) => [id, 1]));
  const limits: [option: string, most: number, make: (n: number) => GenerateOptions][] = [
    ["stop", bounds.stop, (n) => ({ stop: many(n).map(String) })],
    ["stop[0]", bounds.stopBytes, (n) => ({ stop: "x".repeat(n) })],
    ["stopTokens", bounds.stopTokens, (n) => ({ stopTokens: many(n) })],
    ["logitBias", bounds.logitBias, (n) => ({ logitBias: biases(n) })],
    ["key", bounds.key, (n) => ({ key: "x".repeat(n) })],
    ["cache.salt", bounds.salt, (n) => ({ cache: { salt: "x".repeat(n) } })],
  ];
  for (const [option, most, make] of limits) {
    const before = native.requests.length;
    const run = engine.generate({ tokens: [1], maxTokens: 2, ...make(most) });
    t.equal(native.requests.length, before + 1, `${most} of ${option}`);
    run.abort();
    const refused = engine.generate({ tokens: [1], ...make(most + 1) }).result();
    await t.rejects(refused, { code: "INVALID_OPTION", option, message: new RegExp(`at most ${most} `) });
  }
  engine.generate({ tokens: [1], stopTokens: [9, 3, 9, 3, 100] });
  t.same(native.requests.at(-1)?.stopTokens, Int32Array.of(3, 9, 100), "sorted, each once");
});

t.test("tokens that leave none to choose are refused", async (t) => {
  const { engine } = await fakeEngine({ info: { vocabSize: 200, maskTokenId: 199, endTokenIds: [198] } });
  const stopTokens = Array.from({ length: 198 }, (_, i) => i);
  const ask = (more: GenerateOptions) => engine.generate({ tokens: [1], stopTokens, ...more }).result();
  await t.rejects(ask({ minTokens: 1 }), { code: "INVALID_OPTION", option: "stopTokens" });
  for (const allowed of [{}, { minTokens: 1, ignoreEos: true }]) {
    const run = engine.generate({ tokens: [1], stopTokens, ...allowed });
    run.abort();
    t.match(await run.result(), { finishReason: "abort" });
  }
});

t.test("messages of errors are short and have no control characters", async (t) => {
  const { engine } = await fakeEngine();
  const names = ["\u001b[2J\r\n\u202e", "x".repeat(1e6), "\ud800"];
  for (const name of names) {
    const error = await engine
      .generate({ tokens: [1], [name]: 1 } as GenerateRequest)
      .result()
      .catch((e) => e);
    t.equal(error.code, "INVALID_OPTION");
    t.ok(error.message.length <= 1001 && error.option.length <= 201);
    t.notMatch(error.message + error.option, /[\p{Cc}\p{Cs}\u202e]/u);
  }
});

t.test("salts are the same only when their code units are", async (t) => {
  const { engine, native } = await fakeEngine();
  const salts = ["", "\ud800", "\udfff", "\ufffd", "a\0b", "a\0c", "a", "ÿ", "\u00ff\u0000"];
  for (const salt of salts) engine.generate({ tokens: [1], cache: { salt } }).abort();
  const encoded = native.requests.map(({ salt }) => Buffer.from(salt).toString("hex"));
  t.equal(new Set(encoded).size, salts.length - 0, encoded.join());
  t.equal(native.requests[0]?.salt, "");
});

t.test("what is given out cannot be changed", async (t) => {
  const { engine, native } = await fakeEngine();
  const run = engine.generate({ tokens: [1] });
  const reader = run[Symbol.asyncIterator]();
  native.tokens(1, [65, 66]);
  native.finish(1, "length");
  native.wake();
  const { value } = await reader.next();
  const result = await run.result();
  const given: object[] = [
    run,
    value,
    value?.tokens,
    value?.tokens[0],
    result,
    result.tokens,
    result.usage,
  ] as object[];
  given.push(engine.model, engine.model.kv, engine.model.endTokenIds);
  for (const [i, object] of given.entries()) t.ok(Object.isFrozen(object), String(i));
});

t.test("events of one request that cannot be told harm no other", async (t) => {
  const warnings: string[] = [];
  const { engine, native } = await fakeEngine({
    options: { log: (level, message) => void (level === "warn" && warnings.push(message)) },
  });
  const [broken, other] = [engine.generate({ tokens: [1] }), engine.generate({ tokens: [1] })];
  const events = native.takeEvents.bind(native);
  native.takeEvents = () => [{ kind: "tokens", request: 1, computed: {} } as never, ...events()];
  native.finish(2, "length");
  native.wake();
  await t.rejects(broken.result(), { code: "INTERNAL" });
  t.match(await other.result(), { finishReason: "length" });
  t.match(warnings, [/events of request 1 failed/]);
});
