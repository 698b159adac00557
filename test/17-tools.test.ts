// What an engine does around requests: texts and tokens, conversations, many items.
import t from "tap";
import type { Engine, GenerateRequest, Mapped } from "../lib/index.js";
import { eventually } from "./eventually.js";
import { type FakeNative, fakeEngine } from "./fake-binding.js";

const messages = [{ role: "user", content: "2+2" }];
const rendered = "<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n";

t.test("texts and messages as tokens, and back", async (t) => {
  const { engine, native } = await fakeEngine();
  engine.generate({ prompt: "2+2 é" });
  engine.generate({ messages });
  await eventually(t, () => native.requests.length, 2);
  const [prompt, chat] = native.requests.map(({ tokens }) => tokens);
  t.same(await engine.tokenize("2+2 é"), prompt);
  t.same(await engine.tokenize(messages), chat);
  t.equal(await engine.countTokens(messages), chat?.length);
  t.equal(engine.detokenize(prompt as Int32Array), "2+2 é");
  t.equal(engine.detokenize([...(chat as Int32Array)]), "user\n2+2\nassistant\n", "special tokens have no text");
  t.equal(engine.detokenize([0xc3]), "\ufffd");
  t.equal(await engine.renderMessages(messages), rendered);
  t.equal(
    await engine.renderMessages(messages, { addGenerationPrompt: false }),
    rendered.replace("<|im_start|>assistant\n", ""),
  );
  t.not(await engine.countTokens("<|im_end|>"), await engine.countTokens("<|im_end|>", { parseSpecial: false }));
  t.ok((await engine.countTokens("x ".repeat(50_000))) > 50_000, "more than a prompt may have");
});

t.test("what the tools refuse", async (t) => {
  const { engine } = await fakeEngine();
  const invalid = (option: string) => ({ code: "INVALID_OPTION", option });
  await t.rejects(engine.tokenize(3 as unknown as string), invalid("messages"));
  await t.rejects(engine.tokenize([]), invalid("messages"));
  await t.rejects(engine.tokenize("x", { parse: true } as object), invalid("parse"));
  await t.rejects(engine.renderMessages("x" as unknown as []), invalid("messages"));
  await t.rejects(engine.tokenize("x".repeat(2 ** 23 + 1)), { code: "PROMPT_TOO_LONG" });
  t.throws(() => engine.detokenize([560]), { code: "TOKEN_OUT_OF_RANGE" });
  t.throws(() => engine.detokenize("x" as unknown as number[]), invalid("tokens"));
  t.throws(() => engine.chat({ sistem: "x" } as object), { ...invalid("sistem"), message: /did you mean "system"/ });
  t.throws(() => engine.chat({ cut: 1 }), invalid("cut"));
  t.throws(() => engine.chat({ generate: { blockLength: 65 } }), invalid("generate.blockLength"));
  t.throws(() => engine.map(3 as unknown as [], () => ({ prompt: "" })), invalid("items"));
  t.throws(() => engine.map([], 3 as unknown as () => GenerateRequest), invalid("toRequest"));
  t.throws(() => engine.map([], () => ({ prompt: "" }), { concurrency: 0 }), invalid("concurrency"));
  const bare = await fakeEngine({ path: t.testdir({ "config.json": "{}" }) });
  await t.rejects(bare.engine.tokenize("x"), { code: "TOKENIZER_MISSING" });
  t.throws(() => bare.engine.detokenize([1]), { code: "TOKENIZER_MISSING" });
  await engine.dispose();
  await t.rejects(engine.tokenize("x"), { code: "DISPOSED" });
  t.throws(() => engine.detokenize([1]), { code: "DISPOSED" });
});

/** An engine that answers every request with this text, and the prompts that it got. */
async function answering(text = "ok", contextLength = 256) {
  const made = await fakeEngine({
    info: { contextLength, kv: { dtype: "bf16", pages: 64, tokens: 4096, bytes: 4096 } },
  });
  const { engine, native } = made;
  const prompts: Int32Array[] = [];
  const timer = setInterval(() => {
    for (const { id, tokens } of native.requests.splice(0)) {
      prompts.push(tokens);
      native.tokens(id, [...Buffer.from(text)]);
      native.finish(id, "end");
      native.wake();
    }
  }, 1);
  t.teardown(() => clearInterval(timer));
  return { ...made, prompts, text: (prompt?: Int32Array) => engine.detokenize(prompt ?? []) };
}

t.test("a chat keeps what was said", async (t) => {
  const { engine, prompts, text } = await answering();
  const chat = engine.chat({ system: "Be brief.", generate: { maxTokens: 9 } });
  t.equal(await chat.send("a?").text(), "ok");
  const texts: string[] = [];
  for await (const part of chat.send("b?").textStream) texts.push(part);
  t.equal(texts.join(""), "ok");
  const said = ["a?", "ok", "b?", "ok"].map((content, i) => ({ role: i % 2 ? "assistant" : "user", content }));
  await eventually(t, () => chat.messages.length, 4);
  t.same(chat.messages, said);
  t.equal(text(prompts[1]), "system\nBe brief.\nuser\na?\nassistant\nok\nuser\nb?\nassistant\n");

  const fork = chat.fork();
  await fork.send("c?").result();
  t.same(chat.messages, said, "a fork is its own");
  t.equal(fork.messages.length, 6);
  const again = engine.chat(JSON.parse(JSON.stringify(fork)));
  t.same(again.toJSON(), fork.toJSON());
  t.match(again.toJSON(), { system: "Be brief.", contextShift: true, cut: 0 });
});

t.test("a chat whose answer fails, is aborted or still runs", async (t) => {
  const { engine, native } = await fakeEngine();
  const chat = engine.chat();
  const first = chat.send("a?");
  await eventually(t, () => native.requests.length, 1);
  await t.rejects(chat.send("b?").result(), { code: "INVALID_OPTION", option: "send" });
  const [id] = native.requests.map((request) => request.id) as [number];
  native.tokens(id, [...Buffer.from("half")]);
  native.wake();
  first.abort();
  t.match(await first.result(), { text: "half", finishReason: "abort" });
  await eventually(t, () => chat.messages.length, 2);
  t.match(chat.messages, [{ content: "a?" }, { content: "half" }]);
  await t.rejects(chat.send("c?", { temperature: -1 }).result(), { code: "INVALID_OPTION", option: "temperature" });
  await t.rejects(chat.send(3 as unknown as string).result(), { code: "INVALID_OPTION" });
  await t.rejects(chat.send("c?", null as unknown as object).result(), { code: "INTERNAL" });
  t.equal(chat.messages.length, 2, "what failed is not in it");
});

t.test("a chat that is too long loses its oldest turns, many at a time", async (t) => {
  const { engine, prompts } = await answering("x".repeat(20));
  const chat = engine.chat({ system: "Be brief.", generate: { maxTokens: 24 } });
  const cuts: number[] = [];
  for (let i = 0; i < 24; i++) {
    await chat.send(`question ${i}`).result();
    cuts.push(chat.cut);
  }
  t.ok(Math.max(...prompts.map(({ length }) => length)) <= 256 - 24);
  const changes = cuts.filter((cut, i) => cut !== (cuts[i - 1] ?? 0));
  t.ok(changes.length >= 2 && changes.length <= 8, `it was cut ${changes.length} times`);
  t.ok(
    changes.every((cut) => cut % 2 === 0),
    "questions go with their answers",
  );
  const begins = (i: number) => [...(prompts[i] as Int32Array)].slice(0, (prompts[i - 1] as Int32Array).length - 4);
  for (let i = 1; i < 24; i++) {
    if (cuts[i] !== cuts[i - 1]) continue;
    t.same(begins(i), [...(prompts[i - 1] as Int32Array)].slice(0, -4), "between cuts a prompt begins as the last one");
  }
  t.equal(chat.messages.length, 48, "nothing is forgotten");

  const strict = engine.chat({ contextShift: false, messages: chat.messages });
  await t.rejects(strict.send("one more").result(), { code: "PROMPT_TOO_LONG" });
});

/** Ends requests of the fake in the order given. */
function finish(native: FakeNative, ids: number[], text = "ok") {
  for (const id of ids) {
    native.tokens(id, [...Buffer.from(text)]);
    native.finish(id, "end");
  }
  native.wake();
}

const collect = async <Item>(mapped: AsyncIterable<Mapped<Item>>) => {
  const all: Mapped<Item>[] = [];
  for await (const each of mapped) all.push(each);
  return all;
};

t.test("map: in order, or as they come; failures are results", async (t) => {
  for (const ordered of [true, false]) {
    const { engine, native } = await fakeEngine();
    const progress: object[] = [];
    const items = ["a", "b", "c", "d"];
    const all = collect(
      engine.map(
        items,
        (item, index) => {
          if (item === "c") throw new Error("mine");
          return { tokens: [index] };
        },
        { ordered, onProgress: (each) => progress.push(each) },
      ),
    );
    await eventually(t, () => native.requests.length, 3);
    finish(native, [3]);
    await eventually(t, () => progress.length, 2);
    finish(native, [2, 1]);
    const results = await all;
    const order = ordered ? [0, 1, 2, 3] : [2, 3, 1, 0];
    t.same(
      results.map(({ index, item }) => [index, item]),
      order.map((i) => [i, items[i]]),
    );
    t.match(results[ordered ? 2 : 0], { error: { code: "INTERNAL", message: "mine" }, result: undefined });
    t.match(results[3], { result: { text: "ok" }, error: undefined });
    t.same(progress.at(-1), { done: 4, failed: 1 });
  }
});

t.test("map takes items as there is room, and what is unread counts", async (t) => {
  const { engine, native } = await fakeEngine();
  let taken = 0;
  let ended = false;
  async function* source() {
    try {
      for (;;) yield taken++;
    } finally {
      ended = true;
    }
  }
  const mapped = engine.map(source(), (item) => ({ tokens: [item % 100] }), { concurrency: 3 });
  const first = mapped.next();
  await eventually(t, () => native.requests.length, 3);
  finish(native, [1, 2, 3]);
  t.match(await first, { value: { index: 0 } });
  await eventually(t, () => native.requests.length, 4);
  t.equal(taken, 4);
  await mapped.return();
  t.same(native.aborted, [4], "leaving aborts what runs");
  await eventually(t, () => Number(ended), 1);
});

t.test("map ends with its signal, its source and its engine", async (t) => {
  const failing = async (
    ends: (engine: Engine, controller: AbortController) => unknown,
    wanted: { code: string; cause?: object },
  ) => {
    const { engine, native } = await fakeEngine();
    const controller = new AbortController();
    const all = collect(engine.map([1, 2, 3], (id) => ({ tokens: [id] }), { signal: controller.signal }));
    await eventually(t, () => native.requests.length, 3);
    await ends(engine, controller);
    await t.rejects(all, wanted);
  };
  await failing((_, controller) => controller.abort(new Error("enough")), {
    code: "ABORTED",
    cause: { message: "enough" },
  });
  await failing((engine) => engine.dispose(), { code: "DISPOSED" });
  const { engine } = await fakeEngine();
  const broken = (function* () {
    yield 1;
    throw new Error("no more");
  })();
  await t.rejects(collect(engine.map(broken, () => ({ tokens: [1] }))), { message: "no more" });
  await t.rejects(collect(engine.map([1], () => ({ tokens: [1] }), { signal: AbortSignal.abort() })), {
    code: "ABORTED",
  });
  t.same(await collect(engine.map([], () => ({ tokens: [1] }))), []);
});
