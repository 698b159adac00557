import { getEventListeners } from "node:events";
import t from "tap";
import type { Chunk, Run } from "../lib/index.js";
import { fakeEngine } from "./fake-binding.js";

// Ids 0 to 255 of the shipped tokenizer are the bytes.
const letters = (text: string | Uint8Array) => [...Buffer.from(text)];
const letter = (c: string) => c.charCodeAt(0);
const end = 558;

async function collect(run: Run): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for await (const chunk of run) chunks.push(chunk);
  return chunks;
}

async function started(request: object = {}) {
  const { engine, native } = await fakeEngine();
  const run = engine.generate({ tokens: letters("hi"), ...request });
  return { engine, native, run, id: native.requests[0]?.id as number };
}

t.test("chunks and the result say the same", async (t) => {
  const { native, run, id } = await started({ seed: 7 });
  native.tokens(id, letters("ab"));
  native.wake();
  native.tokens(id, [...letters("c"), end], undefined, 1);
  native.finish(id, "end");
  native.wake();
  const chunks = await collect(run);
  t.same(
    chunks.map(({ text }) => text),
    ["ab", "c"],
  );
  t.same(chunks[0]?.tokens[1], { id: letter("b"), position: 17, block: 2, step: 0, confidence: 0.5, logprob: -0.25 });
  const result = await run.result();
  t.same(
    result.tokens,
    chunks.flatMap(({ tokens }) => tokens),
  );
  t.match(result, { text: "abc", finishReason: "end", seed: 7, stopMatched: undefined });
  t.same(result.usage, { promptTokens: 5, cachedTokens: 0, completionTokens: 4, forwards: 2, tokensPerForward: 2 });
});

t.test("text is whole characters however bytes arrive", async (t) => {
  const text = "\ufeffé日🎉x";
  const { native, run, id } = await started();
  for (const byte of letters(text)) native.tokens(id, [byte]);
  native.finish(id, "length");
  native.wake();
  const chunks = await collect(run);
  t.equal(chunks.map((c) => c.text).join(""), text);
  t.same(chunks.map((c) => c.text).filter(Boolean), ["\ufeff", "é", "日", "🎉", "x"]);
  t.equal(chunks.length, Buffer.byteLength(text), "tokens do not wait for their text");
  t.equal((await run.result()).text, text);
});

t.test("what can never be a character is U+FFFD, as a TextDecoder says", async (t) => {
  for (const bytes of [[0x61, 0xf0, 0x9f, 0x8e], [0xc3], [0xff, 0x61], [0xe6, 0x97, 0x61], [0xed, 0xa0, 0x80]]) {
    const { native, run, id } = await started();
    for (const token of bytes) native.tokens(id, [token]);
    native.finish(id, "abort");
    native.wake();
    const text = (await collect(run)).map((c) => c.text).join("");
    t.equal(text, new TextDecoder().decode(Uint8Array.from(bytes)));
    t.equal((await run.result()).text, text);
  }
});

t.test("text waits while it may be the beginning of a stop string, and is cut before one", async (t) => {
  const { native, run, id } = await started({ stop: ["yz", "xy!"] });
  native.tokens(id, letters("abx"), 2);
  native.wake();
  native.tokens(id, letters("y"), 2);
  native.wake();
  native.tokens(id, letters("!"), 2);
  native.finish(id, "stop", 2);
  native.wake();
  const chunks = await collect(run);
  t.equal(chunks.map((c) => c.text).join(""), "ab");
  const result = await run.result();
  t.match(result, { text: "ab", finishReason: "stop", stopMatched: "xy!" });
  t.equal(result.tokens.length, 5, "the tokens of the stop string are there");
});

t.test("a stop token is named by its id", async (t) => {
  const { native, run, id } = await started({ stopTokens: [letter("q")], stop: "q" });
  t.same(native.requests[0]?.stopTokens, Int32Array.of(letter("q")));
  native.tokens(id, letters("aq"), 1);
  native.finish(id, "stop", 1);
  native.wake();
  t.match(await run.result(), { text: "a", finishReason: "stop", stopMatched: letter("q") });
});

t.test("drafts show the active block", async (t) => {
  const { native, run, id } = await started({ drafts: true });
  const [e1, e2] = letters("é") as [number, number];
  native.draft(id, 2, 1, 16, [
    [letter("p"), -1],
    [e1, 0],
    [e2, 1],
    [-1, -1],
    [e1, 1],
    [-1, -1],
    [end, 0],
  ]);
  native.finish(id, "abort");
  native.wake();
  const [chunk] = await collect(run);
  t.same(chunk, {
    answer: 0,
    text: "",
    tokens: [],
    draft: {
      block: 2,
      step: 1,
      position: 16,
      tokens: [
        { id: letter("p"), step: null, text: "p" },
        { id: e1, step: 0, text: "" },
        { id: e2, step: 1, text: "é" },
        null,
        { id: e1, step: 1, text: "\ufffd" },
        null,
        { id: end, step: 0, text: "" },
      ],
    },
  });
});

t.test("an iterator that is opened late, or waits, gets everything", async (t) => {
  const { native, run, id } = await started();
  const iterator = run[Symbol.asyncIterator]();
  const waiting = [iterator.next(), iterator.next(), iterator.next()];
  native.tokens(id, letters("a"));
  native.wake();
  native.tokens(id, letters("b"));
  native.finish(id, "length");
  native.wake();
  const [first, second, third] = await Promise.all(waiting);
  t.match([first?.value?.text, second?.value?.text, third?.done], ["a", "b", true]);
  t.same(await iterator.next(), { done: true, value: undefined });

  t.throws(() => run[Symbol.asyncIterator](), { code: "ITERATOR_USED" }, "an iterator is single-use");
});

t.test("an error comes after what was generated before it, from the iterator and from result()", async (t) => {
  const { native, run, id } = await started();
  native.tokens(id, letters("a"));
  native.fail(id, "NUMERIC_ERROR", "logits at position 17 hold a NaN");
  native.wake();
  const texts: string[] = [];
  const failing = async () => {
    for await (const { text } of run) texts.push(text);
  };
  await t.rejects(failing(), { name: "SdarError", code: "NUMERIC_ERROR", message: /position 17/ });
  t.same(texts, ["a"]);
  await t.rejects(run.result(), { code: "NUMERIC_ERROR" });
});

t.test("a waiting iterator gets the error, the next one ends", async (t) => {
  const { native, run, id } = await started();
  const iterator = run[Symbol.asyncIterator]();
  const waiting = [iterator.next(), iterator.next()];
  native.fail(id, "SOMETHING_NEW", "unheard of");
  native.wake();
  const [first, second] = await Promise.allSettled(waiting);
  t.match(first, { status: "rejected", reason: { code: "INTERNAL", message: "unheard of" } });
  t.match(second, { status: "fulfilled", value: { done: true } });
});

t.test("leaving the loop early aborts the run", async (t) => {
  const leave: Record<string, (run: Run) => Promise<unknown>> = {
    break: async (run) => {
      for await (const _ of run) break;
    },
    exception: async (run) => {
      const failing = async () => {
        for await (const _ of run) throw new Error("consumer");
      };
      await t.rejects(failing(), { message: "consumer" });
    },
    return: async (run) => run[Symbol.asyncIterator]().return?.(),
    throw: async (run) => {
      const iterator = run[Symbol.asyncIterator]();
      const waiting = iterator.next();
      await t.rejects(iterator.throw?.(new Error("mine")) as Promise<unknown>, { message: "mine" });
      await waiting;
    },
  };
  for (const [name, act] of Object.entries(leave)) {
    const { native, run, id } = await started();
    native.tokens(id, letters("ab"));
    native.wake();
    await act(run);
    t.same(native.aborted, [id], name);
    t.match(await run.result(), { finishReason: "abort", text: "ab" });
  }
});

t.test("leaving after the end aborts nothing", async (t) => {
  const { native, run, id } = await started();
  native.tokens(id, letters("ab"));
  native.finish(id, "end");
  native.wake();
  for await (const _ of run) break;
  run.abort();
  t.same(native.aborted, []);
  t.match(await run.result(), { finishReason: "end" });
});

t.test("abort and signals", async (t) => {
  const { native, run, id } = await started();
  native.endsOnAbort = false;
  native.tokens(id, letters("ab"));
  native.wake();
  run.abort();
  run.abort();
  native.tokens(id, letters("c"));
  native.finish(id, "abort");
  native.wake();
  t.match(await run.result(), { finishReason: "abort", text: "abc" }, "resolves with what was generated");
  t.same(
    (await collect(run)).map((c) => c.text),
    ["ab", "c"],
  );

  const controller = new AbortController();
  const during = await started({ signal: controller.signal });
  controller.abort();
  t.same(during.native.aborted, [during.id]);
  t.match(await during.run.result(), { finishReason: "abort" });

  const before = await started({ signal: AbortSignal.abort(), seed: 3 });
  t.same(before.native.requests, [], "nothing is submitted");
  const result = await before.run.result();
  t.match(result, {
    finishReason: "abort",
    text: "",
    seed: 3,
    usage: { completionTokens: 0, forwards: 0, tokensPerForward: 0 },
  });
  t.same(result.tokens, []);
  t.same(await collect(before.run), []);
});

t.test("a signal that outlives its runs does not hold them", async (t) => {
  const { signal } = new AbortController();
  const { native, run, id } = await started({ signal });
  t.equal(getEventListeners(signal, "abort").length, 1);
  native.finish(id, "end");
  native.wake();
  await run.result();
  t.equal(getEventListeners(signal, "abort").length, 0);
});

t.test("runs do not mix, and late events are ignored", async (t) => {
  const { engine, native, run, id } = await started();
  const other = engine.generate({ tokens: letters("other") });
  const otherId = native.requests[1]?.id as number;
  t.not(otherId, id);
  native.tokens(id, letters("a"));
  native.tokens(otherId, letters("b"));
  native.finish(otherId, "end");
  native.tokens(otherId, letters("late"));
  native.tokens(999, letters("unknown"));
  native.finish(id, "length");
  native.wake();
  t.same([(await run.result()).text, (await other.result()).text], ["a", "b"]);
});

t.test("errors that nobody asks for are no unhandled rejections", async (t) => {
  const unhandled: unknown[] = [];
  const listener = (reason: unknown) => unhandled.push(reason);
  process.on("unhandledRejection", listener);
  const { engine, native, run, id } = await started();
  native.fail(id, "NUMERIC_ERROR", "x");
  native.wake();
  engine.generate({ prompt: "hi", maxTokens: 0 });
  const iterated = engine.generate({ prompt: "hi", topP: 2 });
  await t.rejects(collect(iterated), { code: "INVALID_OPTION", option: "topP" });
  void run.result();
  await new Promise((resolve) => setTimeout(resolve, 20));
  process.off("unhandledRejection", listener);
  t.same(unhandled, []);
});
