// What an engine tells about itself: events, counters, spans.
import { context, SpanStatusCode, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import t from "tap";
import type { Engine, EngineEvents, GenerateRequest } from "../lib/index.js";
import { FakeClock, fakeEngine } from "./fake-binding.js";

/** Three requests are handed over, one waits, no more are taken. */
const fullEngine = () => fakeEngine({ options: { maxConcurrent: 1, queue: { maxRequests: 1 } } });

const request: GenerateRequest = { tokens: [1, 2, 3], maxTokens: 8, key: "tenant", priority: 2 };

t.test("events follow a request from the queue to its end", async (t) => {
  const clock = new FakeClock();
  const { engine, native } = await fakeEngine({ clock });
  const seen: [string, object][] = [];
  const listen = (to: Engine) => {
    for (const name of ["queued", "started", "preempted", "finished", "failed", "rejected"] as const)
      to.on(name, (event) => seen.push([name, event]));
  };
  listen(engine);
  engine.generate(request);
  clock.pass(5);
  native.started(1, 2);
  native.wake();
  clock.pass(3);
  native.tokens(1, [65]);
  native.preempted(1);
  native.wake();
  native.finish(1, "length");
  native.wake();
  const who = { id: 1, key: "tenant", priority: 2 };
  t.match(seen, [
    ["queued", { ...who, promptTokens: 3, queuedRequests: 1, elapsedMs: 0 }],
    ["started", { ...who, cachedTokens: 2, elapsedMs: 5 }],
    ["preempted", { ...who, answer: 0, elapsedMs: 8 }],
    ["finished", { ...who, finishReason: "length", startedMs: 5, firstTokenMs: 8, usage: { promptTokens: 5 } }],
  ]);
  seen.length = 0;
  const full = await fullEngine();
  listen(full.engine);
  const runs = Array.from({ length: 5 }, () => full.engine.generate({ tokens: [1] }));
  full.native.fail(2, "NUMERIC_ERROR", "a NaN");
  full.native.wake();
  await t.rejects(runs[4]?.result() as Promise<unknown>, { code: "QUEUE_FULL" });
  t.match(
    seen.filter(([name]) => name !== "queued"),
    [
      ["rejected", { key: undefined, error: { code: "QUEUE_FULL" } }],
      ["failed", { id: 2, error: { code: "NUMERIC_ERROR" } }],
    ],
  );
});

t.test("a listener that throws is logged and changes nothing", async (t) => {
  const logged: string[] = [];
  const { engine, native } = await fakeEngine({ options: { log: (_, message) => logged.push(message) } });
  const ends: EngineEvents["finished"][] = [];
  const thrower = () => {
    throw new Error("listener");
  };
  engine.on("queued", thrower);
  engine.on("finished", async () => thrower());
  engine.on("finished", (event) => ends.push(event));
  const run = engine.generate(request);
  native.finish(1, "end");
  native.wake();
  t.match(await run.result(), { finishReason: "end" });
  t.equal(ends.length, 1);
  t.match(
    logged.filter((line) => line.includes("listener")),
    [/"queued" threw: Error: listener/, /"finished" threw: Error: listener/],
  );
  engine.off("queued", thrower);
  const before = logged.length;
  engine.generate(request);
  t.equal(logged.length, before);
  for (const bad of [["quued", () => {}] as const, ["queued", 3] as const])
    t.throws(() => engine.on(bad[0] as "queued", bad[1] as () => void), { code: "INVALID_OPTION" });
});

t.test("rates are those of the last seconds", async (t) => {
  const clock = new FakeClock();
  const { engine, native } = await fakeEngine({ clock });
  const run = (seconds: number, each: Partial<typeof native.counters>) => {
    for (let i = 0; i < seconds; i++) {
      clock.pass(1000);
      for (const name of Object.keys(each) as "steps"[]) native.counters[name] += each[name] ?? 0;
      native.wake();
    }
  };
  t.match(engine.stats().recent, { stepsPerSecond: 0, batchSize: 0, cacheHitRate: 0 });
  run(30, { steps: 10, sequences: 20, filledTokens: 40, promptTokens: 100, cachedTokens: 0 });
  t.match(engine.stats().recent, {
    seconds: 10,
    stepsPerSecond: 10,
    tokensPerSecond: 40,
    batchSize: 2,
    cacheHitRate: 0,
  });
  run(10, { steps: 20, sequences: 160, filledTokens: 400, promptTokens: 100, cachedTokens: 75 });
  t.match(engine.stats().recent, { stepsPerSecond: 20, tokensPerSecond: 400, batchSize: 8, cacheHitRate: 0.75 });
});

t.test("a span for each request", async (t) => {
  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  trace.setGlobalTracerProvider(provider);
  t.teardown(() => {
    trace.disable();
    context.disable();
  });
  const { engine, native } = await fakeEngine();
  const parent = trace.getTracer("test").startSpan("caller");
  const run = context.with(trace.setSpan(context.active(), parent), () =>
    engine.generate({ ...request, temperature: 0.5, topK: 4, stop: "x", seed: 9 }),
  );
  native.started(1, 2);
  native.tokens(1, [65]);
  native.preempted(1);
  native.wake();
  native.finish(1, "end");
  native.wake();
  await run.result();
  const [span] = exporter.getFinishedSpans();
  t.equal(exporter.getFinishedSpans().length, 1);
  t.match(span, {
    name: "sdar.generate",
    attributes: {
      "gen_ai.operation.name": "text_completion",
      "gen_ai.request.model": "sdar-nano",
      "gen_ai.request.max_tokens": 8,
      "gen_ai.request.temperature": 0.5,
      "gen_ai.request.top_k": 4,
      "gen_ai.request.seed": 9,
      "gen_ai.request.stop_sequences": ["x"],
      "gen_ai.usage.input_tokens": 5,
      "gen_ai.usage.output_tokens": 4,
      "gen_ai.response.finish_reasons": ["stop"],
      "sdar.request.key": "tenant",
      "sdar.request.priority": 2,
    },
    status: { code: SpanStatusCode.UNSET },
  });
  t.equal(span?.parentSpanContext?.spanId, parent.spanContext().spanId);
  t.same(
    span?.events.map(({ name }) => name),
    ["queued", "started", "first_token", "preempted"],
  );

  exporter.reset();
  const full = await fullEngine();
  const runs = Array.from({ length: 5 }, () => full.engine.generate(request));
  await t.rejects(runs[4]?.result() as Promise<unknown>, { code: "QUEUE_FULL" });
  full.native.fail(2, "NUMERIC_ERROR", "a NaN");
  full.native.wake();
  runs[0]?.abort();
  await runs[0]?.result();
  t.match(
    exporter.getFinishedSpans().map(({ status, attributes }) => [status.code, attributes["error.type"]]),
    [
      [SpanStatusCode.ERROR, "QUEUE_FULL"],
      [SpanStatusCode.ERROR, "NUMERIC_ERROR"],
      [SpanStatusCode.UNSET, undefined],
    ],
  );
});
