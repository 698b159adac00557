// A stand-in for the addon, driven by the test: it computes nothing and says what the test makes it say.
import type {
  Binding,
  NativeEngine,
  NativeEvent,
  NativeLoadOptions,
  NativeModelInfo,
  NativeRequest,
  NativeStats,
} from "../lib/binding.js";
import { shippedModelPath } from "../lib/checkpoint.js";
import type { Clock } from "../lib/clock.js";
import { Engine } from "../lib/engine.js";
import type { FinishReason, LoadOptions } from "../lib/types.js";

export const fakeInfo: NativeModelInfo = {
  modelType: "sdar",
  decoding: "block_diffusion",
  device: "cpu",
  cardProblem: "",
  passedOver: "",
  isa: "fake",
  threads: 1,
  weights: "bf16",
  parameters: 1000,
  weightBytes: 2000,
  layers: 1,
  hiddenSize: 8,
  vocabSize: 560,
  contextLength: 64,
  blockLength: 8,
  maskTokenId: 559,
  endTokenIds: [558, 556],
  kv: { dtype: "bf16", pages: 4, tokens: 256, bytes: 4096 },
};

export const noCuda = { library: "", driver: "", runtime: "", cards: [], problem: "none here" };

export class FakeNative implements NativeEngine {
  readonly requests: NativeRequest[] = [];
  readonly aborted: number[] = [];
  /** calls of pause and resume, in order */
  readonly held: [call: "pause" | "resume", id: number][] = [];
  closed = 0;
  table: { bytes: Uint8Array; offsets: Uint32Array } | undefined;
  endTokens: Int32Array | undefined;
  /** what submit throws */
  refusal: Error | undefined;
  /** whether abort() ends the request at once */
  endsOnAbort = true;
  /** what finish() says the prompt had */
  promptTokens = 5;
  counters: NativeStats = noStats();
  #events: NativeEvent[] = [];
  #released = new Map<number, number>();
  #counts = new Map<number, number>();

  constructor(
    readonly onWake: () => void,
    readonly model: NativeModelInfo,
  ) {}

  setTokenBytes(bytes: Uint8Array, offsets: Uint32Array) {
    this.table = { bytes, offsets };
  }
  setEndTokens(ids: Int32Array) {
    this.endTokens = ids;
  }
  info = () => this.model;
  /** forms that were asked for, as JSON */
  readonly forms: string[] = [];
  async compileForm(json: string) {
    this.forms.push(json);
    return { form: json, leastTokens: 3, bytes: 1000, runs: [] };
  }
  setSplits() {}
  submit(request: NativeRequest) {
    if (this.refusal) throw this.refusal;
    this.requests.push(request);
  }
  abort(id: number) {
    this.aborted.push(id);
    if (!this.endsOnAbort) return;
    this.finish(id, "abort");
    this.wake();
  }
  takeEvents() {
    const events = this.#events;
    this.#events = [];
    return events;
  }
  pause(id: number) {
    this.held.push(["pause", id]);
  }
  resume(id: number) {
    this.held.push(["resume", id]);
  }
  stats() {
    return this.counters;
  }
  async close() {
    this.closed++;
  }

  /** Tokens of consecutive positions; `released` defaults to all bytes so far. */
  tokens(id: number, ids: number[], released?: number, step = 0) {
    const bytes = ids.reduce((n, t) => n + (this.table ? this.#offset(t + 1) - this.#offset(t) : 0), 0);
    const total = (this.#released.get(id) ?? 0) + bytes;
    this.#released.set(id, total);
    const tokens = ids.map((t, i) => ({ id: t, position: 16 + i, block: 2, step, confidence: 0.5, logprob: -0.25 }));
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + ids.length);
    const far = { forwards: 2, computed: this.#computed(id) };
    this.#events.push({ kind: "tokens", request: id, releasedBytes: released ?? total, tokens, ...far });
  }
  finish(id: number, reason: FinishReason, textBytes = this.#released.get(id) ?? 0) {
    const usage = { promptTokens: this.promptTokens, cachedTokens: 0, completionTokens: 4, forwards: 2 };
    this.#events.push({ kind: "finished", request: id, reason, textBytes, ...usage, computed: this.#computed(id) });
  }
  started(id: number, cachedTokens = 0) {
    this.#events.push({ kind: "started", request: id, cachedTokens });
  }
  preempted(id: number) {
    this.#events.push({ kind: "preempted", request: id });
  }
  fail(id: number, code: string, message: string) {
    this.#events.push({ kind: "failed", request: id, code, message, computed: this.#computed(id) });
  }
  /** An id of -1 is masked, a step of -1 the prompt's. */
  draft(id: number, block: number, step: number, position: number, slots: [id: number, step: number][]) {
    const filled = slots.map(([token, at]) => (token < 0 ? null : { id: token, step: at < 0 ? null : at }));
    this.#events.push({ kind: "draft", request: id, block, step, position, slots: filled });
  }
  wake() {
    this.onWake();
  }

  /** As if each token took half a step of a block of 8. */
  #computed = (id: number) => ({ rows: this.promptTokens + 8 * (this.#counts.get(id) ?? 0), steps: 0 });
  #offset = (id: number) => this.table?.offsets[id] ?? 0;
}

const noStats = (): NativeStats => ({
  running: 0,
  waiting: 0,
  paused: 0,
  pages: { total: 4, free: 4, cached: 0, active: 0, pinned: 0 },
  steps: 0,
  rows: 0,
  sequences: 0,
  maxSequences: 0,
  forwards: 0,
  filledTokens: 0,
  prefillTokens: 0,
  promptTokens: 0,
  cachedTokens: 0,
  draftSteps: 0,
  draftSeconds: 0,
  draftForwards: 0,
  draftedTokens: 0,
  acceptedTokens: 0,
  preemptions: 0,
  recomputedTokens: 0,
  evictions: 0,
  finished: { end: 0, stop: 0, length: 0, abort: 0, error: 0, deadline: 0 },
  stepSeconds: 0,
  schedulerSeconds: 0,
  failure: "",
  seconds: { prefill: 0, attention: 0, gemm: 0, head: 0, denoise: 0 },
  tokensPerForward: [],
});

/** Time that passes when the test says so. */
export class FakeClock implements Clock {
  #now = 1000;
  #timers: { at: number; then: () => void }[] = [];

  now = () => this.#now;
  after(ms: number, then: () => void) {
    const timer = { at: this.#now + ms, then };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }
  pass(ms: number) {
    const until = this.#now + ms;
    for (;;) {
      const due = this.#timers.filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#timers = this.#timers.filter((other) => other !== due);
      this.#now = Math.max(this.#now, due.at);
      due.then();
    }
    this.#now = until;
  }
  get timers() {
    return this.#timers.length;
  }
}

export interface FakeSetup {
  options?: LoadOptions;
  clock?: Clock;
  path?: string;
  info?: Partial<NativeModelInfo>;
}

/** An engine on a fake addon, by default with the tokenizer of the shipped model. */
export async function fakeEngine({ options, path = shippedModelPath(), info, clock }: FakeSetup = {}) {
  const holder: { native?: FakeNative; settings?: NativeLoadOptions } = {};
  const binding: Binding = {
    load(settings, _onProgress, onWake) {
      holder.settings = settings;
      holder.native = new FakeNative(onWake, { ...fakeInfo, ...info });
      return { promise: Promise.resolve(holder.native), cancel() {} };
    },
    instructionSets: () => ["fake"],
    probeCuda: () => noCuda,
  };
  const engine = await Engine.loadWith(() => binding, path, options, clock);
  return { engine, native: holder.native as FakeNative, settings: holder.settings as NativeLoadOptions };
}
