// What everybody writes first on top of a run and an engine: text, streams, waiting, listening, defaults, errors.
import t from "tap";
import { SdarError } from "../lib/errors.js";
import type { GenerateRequest } from "../lib/index.js";
import { FakeClock, fakeEngine } from "./fake-binding.js";

const letters = (text: string) => [...Buffer.from(text)];

async function begun(request: object = {}) {
  const { engine, native } = await fakeEngine();
  const run = engine.generate({ tokens: letters("hi"), ...request });
  const id = native.requests[0]?.id as number;
  const say = (text: string) => {
    native.tokens(id, letters(text));
    native.wake();
  };
  const end = (reason: "end" | "length" = "end") => {
    native.finish(id, reason);
    native.wake();
  };
  return { engine, native, run, id, say, end };
}

async function textsOf(stream: AsyncIterable<string>): Promise<string[]> {
  const texts: string[] = [];
  for await (const text of stream) texts.push(text);
  return texts;
}

t.test("text() is the result's text", async (t) => {
  const { run, say, end } = await begun();
  say("ab");
  end();
  t.equal(await run.text(), "ab");
});

t.test("textStream gives the texts of the first completion, once", async (t) => {
  const { run, native, say } = await begun({ n: 2 });
  say("a");
  native.tokens(2, letters("other"));
  say("b");
  for (const id of [1, 2]) native.finish(id, "end");
  native.wake();
  t.equal(run.textStream, run.textStream);
  t.same(await textsOf(run.textStream), ["a", "b"]);
  t.throws(() => run[Symbol.asyncIterator](), { code: "ITERATOR_USED" });
  await t.rejects(textsOf(run.toReadableStream() as unknown as AsyncIterable<string>), { code: "ITERATOR_USED" });
});

t.test("streams take nothing from a run before somebody reads", async (t) => {
  const { run, native, id, say, end } = await begun({ highWaterMark: 2 });
  const reader = run.toReadableStream().getReader();
  say("abcdef");
  t.same(native.held, [], "nothing is held back before it is opened");
  const first = await reader.read();
  t.equal(Buffer.from(first.value as Uint8Array).toString(), "abcdef");
  native.held.length = 0; // that it was held when it was opened
  say("ghi");
  t.same(native.held, [["pause", id]], "one that does not read on holds its run back");
  t.equal(Buffer.from((await reader.read()).value as Uint8Array).toString(), "ghi");
  t.same(native.held.at(-1), ["resume", id]);
  end();
  t.match(await reader.read(), { done: true });
});

t.test("cancelling a stream, or leaving its loop, aborts", async (t) => {
  for (const leave of [
    (run: Awaited<ReturnType<typeof begun>>["run"]) => run.toReadableStream().cancel(),
    (run: Awaited<ReturnType<typeof begun>>["run"]) => run.textStream.cancel(),
    async (run: Awaited<ReturnType<typeof begun>>["run"]) => {
      for await (const text of run.textStream) if (text === "a") break;
    },
  ]) {
    const { run, native, id, say } = await begun();
    say("a");
    await leave(run);
    t.same(native.aborted, [id]);
    t.match(await run.result(), { finishReason: "abort" });
  }
});

t.test("an error reaches whoever reads the stream", async (t) => {
  const { run, native, id, say } = await begun();
  say("a");
  native.fail(id, "NUMERIC_ERROR", "a NaN");
  native.wake();
  await t.rejects(textsOf(run.textStream), { code: "NUMERIC_ERROR" });
  await t.rejects(run.text(), { code: "NUMERIC_ERROR" });
  await run.started;
});

t.test("started says that a request was accepted, or why not", async (t) => {
  const { engine, native } = await fakeEngine({
    options: { maxConcurrent: 1, queue: { maxRequests: 1 } },
    info: { contextLength: 1024, kv: { dtype: "bf16", pages: 64, tokens: 4096, bytes: 4096 } },
  });
  const long = { tokens: letters("hi"), maxTokens: 1000 };
  await engine.generate(long).started;
  await engine.generate({ prompt: "x" }).started;
  const refused: [GenerateRequest, string][] = [
    [{ prompt: "x", temperature: -1 }, "INVALID_OPTION"],
    [{ prompt: "x ".repeat(2000) }, "PROMPT_TOO_LONG"],
  ];
  for (const [request, code] of refused) await t.rejects(engine.generate(request).started, { code });
  for (let i = 0; i < 50; i++) engine.generate(long);
  await t.rejects(engine.generate(long).started, { code: "QUEUE_FULL" });
  const gone = engine.generate({ ...long, signal: AbortSignal.abort() });
  await gone.started;
  t.match(await gone.result(), { finishReason: "abort" });
  t.ok(native.requests.length > 0);
  await engine.dispose();
});

t.test("whenFull: wait comes in when there is room, in order, and can be given up", async (t) => {
  const clock = new FakeClock();
  const { engine, native } = await fakeEngine({
    clock,
    options: { maxConcurrent: 1, queue: { maxRequests: 1 }, generate: { whenFull: "wait" } },
  });
  const rejected: string[] = [];
  engine.on("rejected", ({ error }) => rejected.push(error.code));
  const request = { tokens: [1], maxTokens: 40 };
  const accepted: number[] = [];
  const runs = Array.from({ length: 8 }, (_, i) => {
    const run = engine.generate({ ...request, ...(i === 6 ? { deadline: 100 } : {}) });
    run.started.then(
      () => accepted.push(i),
      () => {},
    );
    return run;
  });
  await Promise.resolve();
  const atOnce = accepted.length;
  t.ok(atOnce < 5, `${atOnce} are in`);
  await t.rejects(engine.generate({ ...request, whenFull: "reject" }).result(), { code: "QUEUE_FULL" });
  clock.pass(101);
  await t.rejects(runs[6]?.result() as Promise<unknown>, { code: "DEADLINE_EXCEEDED" });
  runs[5]?.abort();
  t.match(await runs[5]?.result(), { finishReason: "abort" });
  for (let round = 0; round < 8; round++) {
    for (const { id } of native.requests) native.finish(id, "end");
    native.wake();
  }
  for (const i of [0, 1, 2, 3, 4, 7]) t.match(await runs[i]?.result(), { finishReason: "end" });
  t.same(
    accepted.filter((i) => i !== 5),
    [0, 1, 2, 3, 4, 7],
    "in order of arrival",
  );
  t.same(rejected, ["QUEUE_FULL"]);
});

t.test("who waits for room fails with dispose(), and drain waits for them", async (t) => {
  const options = { maxConcurrent: 1, queue: { maxRequests: 0 }, generate: { whenFull: "wait" as const } };
  const { engine, native } = await fakeEngine({ options });
  const runs = Array.from({ length: 6 }, () => engine.generate({ tokens: [1], maxTokens: 40 }));
  const drained = engine.dispose({ drain: true });
  for (let round = 0; round < 6; round++) {
    for (const { id } of native.requests) native.finish(id, "end");
    native.wake();
  }
  for (const run of runs) t.match(await run.result(), { finishReason: "end" });
  await drained;

  const other = await fakeEngine({ options });
  const waiting = Array.from({ length: 6 }, () => other.engine.generate({ tokens: [1], maxTokens: 40 }));
  await other.engine.dispose();
  for (const run of waiting) await t.rejects(run.result(), { code: "DISPOSED" });
});

t.test("defaults of generate hold where a request says nothing", async (t) => {
  const { engine, native } = await fakeEngine({
    options: { generate: { maxTokens: 7, temperature: 0.5, quality: "fast", stop: "x", parseSpecial: true } },
  });
  const asked = (request: GenerateRequest) => {
    engine.generate(request);
    return native.requests.at(-1);
  };
  t.match(asked({ tokens: [1] }), { maxTokens: 7, temperature: 0.5, strategy: 4, factor: 5, stop: [Buffer.from("x")] });
  t.match(asked({ tokens: [1], maxTokens: 3, temperature: 0 }), { maxTokens: 3, temperature: 0 });
  t.match(asked({ tokens: [1], denoise: { threshold: 0.5 } }), { strategy: 0, threshold: 0.5 });
  t.match(
    asked({ tokens: [1], maxTokens: undefined as unknown as number }),
    { maxTokens: 7 },
    "undefined says nothing",
  );

  const loads = (generate: object) => fakeEngine({ options: { generate } });
  const refused = { code: "INVALID_OPTION" };
  await t.rejects(loads({ maxToken: 1 }), {
    ...refused,
    option: "generate.maxToken",
    message: /did you mean "maxTokens"/,
  });
  await t.rejects(loads({ prompt: "x" }), { ...refused, option: "generate.prompt" });
  await t.rejects(loads({ quality: "fast", denoise: {} }), { ...refused, option: "quality" });
  await t.rejects(loads({ stopTokens: [560] }), { code: "TOKEN_OUT_OF_RANGE" });
});

t.test("once, and listening until a signal", async (t) => {
  const { engine, native } = await fakeEngine();
  const heard: string[] = [];
  const until = new AbortController();
  engine.once("queued", () => heard.push("once"));
  engine.on("queued", () => heard.push("until"), { signal: until.signal });
  engine.on("queued", () => heard.push("never"), { signal: AbortSignal.abort() });
  const twice = () => heard.push("twice");
  engine.once("queued", twice).off("queued", twice);
  const ask = () => engine.generate({ tokens: [1] });
  ask();
  ask();
  until.abort();
  ask();
  t.same(heard, ["once", "until", "until"]);
  t.throws(() => engine.on("queued", () => {}, { signal: 3 as unknown as AbortSignal }), {
    code: "INVALID_OPTION",
    option: "signal",
  });
  t.equal(native.requests.length, 3);
});

t.test("errors know themselves", async (t) => {
  const { engine } = await fakeEngine();
  const failure = (request: object): Promise<SdarError> =>
    engine
      .generate(request as GenerateRequest)
      .result()
      .then(
        () => t.fail("it must fail") as never,
        (error) => error,
      );
  const bad = await failure({ prompt: "x", temperature: -1 });
  t.match(JSON.parse(JSON.stringify(bad)), {
    name: "SdarError",
    code: "INVALID_OPTION",
    option: "temperature",
    value: -1,
    allowed: String,
    message: bad.message,
  });
  t.equal(bad.isRetryable, false);
  t.notOk("stack" in bad.toJSON());
  t.equal(new SdarError("QUEUE_FULL", "full", { retryAfterMs: 5 }).isRetryable, true);

  const ids = await failure({ tokens: new Array(64).fill(1) });
  t.match(ids, { code: "PROMPT_TOO_LONG", promptTokens: 64, maxPromptTokens: 63 });
  const counted = await engine.countTokens("x ".repeat(2000));
  t.match(await failure({ prompt: "x ".repeat(2000) }), { promptTokens: counted, maxPromptTokens: 63 });
  const messages = [{ role: "user", content: "x ".repeat(2000) }];
  t.match(await failure({ messages }), { promptTokens: await engine.countTokens(messages), maxPromptTokens: 63 });
  t.match(await failure({ prompt: "x ".repeat(40_000) }), { promptTokens: undefined, maxPromptTokens: 63 });

  t.ok(SdarError.is(bad));
  t.ok(SdarError.is(bad, "INVALID_OPTION"));
  t.notOk(SdarError.is(bad, "QUEUE_FULL"));
  const copy = `${new URL("../lib/errors.js", import.meta.url)}?copy`;
  const { SdarError: Theirs } = (await import(copy)) as { SdarError: typeof SdarError };
  const theirs = new Theirs("QUEUE_FULL", "full");
  t.notOk(theirs instanceof SdarError);
  t.ok(SdarError.is(theirs, "QUEUE_FULL"), "of another copy");
  const hostile = new Proxy(
    {},
    {
      get() {
        throw new Error("mine");
      },
    },
  );
  for (const other of [undefined, null, 3, new Error("x"), { name: "SdarError", code: "QUEUE_FULL" }, hostile])
    t.equal(SdarError.is(other), false);
});
