// Nothing that a request's text holds stalls JavaScript's thread: measured as the longest time that a timer was late.
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { SdarError } from "../lib/errors.js";
import type { GenerateRequest } from "../lib/index.js";
import { fakeEngine } from "./fake-binding.js";
import { qwen3Info, writeQwen3 } from "./qwen3.js";
import { texts } from "./tokenizer/texts.js";

/** Milliseconds that the event loop stood still at worst while `work` went on. */
async function stall(work: () => Promise<unknown>): Promise<number> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  await sleep(5);
  delay.enable();
  await sleep(2);
  await work();
  await sleep(2);
  delay.disable();
  return delay.max / 1e6;
}

/** The best of some tries: a busy machine stalls for reasons of its own. */
async function leastStall(work: () => Promise<unknown>): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let tries = 0; tries < 8 && least > 20; tries++) least = Math.min(least, await stall(work));
  return least;
}

t.test("texts of strangers, with the tokenizer of Qwen3", async (t) => {
  const path = writeQwen3(t.testdir({}));
  const { engine, native } = await fakeEngine({ path, info: qwen3Info });
  /** The text was encoded, or refused by name. */
  const accepted = async (request: GenerateRequest) => {
    const before = native.requests.length;
    const run = engine.generate(request);
    let error: unknown;
    run.result().catch((e) => {
      error = e;
    });
    while (native.requests.length === before && !error) await sleep(1);
    run.abort();
    if (error && !(error instanceof SdarError && error.code !== "INTERNAL")) throw error;
  };
  const long: Record<string, string> = {
    letters: "a".repeat(1_000_000),
    spaces: " ".repeat(1_000_000),
    "line ends": "\n".repeat(300_000),
    Han: "的".repeat(300_000),
    marks: `e${"\u0315\u0300".repeat(60_000)}`,
    "names of tokens": "<|im_end|>".repeat(20_000),
    "halves of names": "<|im_".repeat(20_000),
    random: texts(2000, ["<|im_start|>", "</think>"]).join(""),
    "lone surrogates": "\ud83d".repeat(100_000),
  };
  for (const [what, content] of Object.entries(long)) {
    const requests = [
      { prompt: content },
      { prompt: content, parseSpecial: false },
      { messages: [{ role: "user", content }] },
    ];
    for (const request of requests) {
      const worst = await leastStall(() => accepted(request));
      t.ok(worst < 20, `${what}: ${worst.toFixed(1)} ms`);
    }
  }
  const many = Array.from({ length: 1000 }, (_, i) => ({ role: i % 2 ? "assistant" : "user", content: "a | b <c>" }));
  const worst = await leastStall(() => accepted({ messages: many }));
  t.ok(worst < 20, `many messages: ${worst.toFixed(1)} ms`);
  await engine.dispose();
});

t.test("loading a large tokenizer, which can be given up at once", async (t) => {
  const path = writeQwen3(t.testdir({}));
  const load = async () => {
    const { engine } = await fakeEngine({ path, info: qwen3Info });
    await engine.dispose();
  };
  await load();
  const worst = await leastStall(load);
  t.ok(worst < 60, `${worst.toFixed(1)} ms`);
  const began = performance.now();
  const loading = fakeEngine({ path, info: qwen3Info, options: { signal: AbortSignal.timeout(20) } });
  await t.rejects(loading, { code: "ABORTED" });
  t.ok(performance.now() - began < 5000, "long before a slow machine has read it");
});
