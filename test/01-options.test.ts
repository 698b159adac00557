import t, { type Test } from "tap";
import { shippedModelPath } from "../lib/checkpoint.js";
import { SdarError } from "../lib/index.js";
import { parseLoadOptions, parseRequest } from "../lib/options.js";
import { checkPromptLength, roomFor } from "../lib/room.js";
import type { GenerateRequest, LoadOptions, RequestFields } from "../lib/types.js";
import { fakeInfo } from "./fake-binding.js";

const request = (options: object) => parseRequest({ tokens: [1], ...options } as GenerateRequest, fakeInfo);
const load = (options: object) => parseLoadOptions(options as LoadOptions);

/** What each of these options refuses; every refusal names the option, the value and what is allowed. */
function refuses(t: Test, parse: (options: object) => unknown, options: Record<string, unknown[]>) {
  for (const [option, values] of Object.entries(options)) {
    const path = option.split(".");
    for (const value of values) {
      const bad = path.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value) as object;
      try {
        parse(bad);
        t.fail(`${option} took ${String(value)}`);
      } catch (error) {
        if (!(error instanceof SdarError)) throw error;
        t.equal(error.code, "INVALID_OPTION", `${option}: ${String(value)}`);
        t.ok(error.option?.startsWith(option), `names ${option}, says ${error.option}`);
        t.ok(error.message.includes(option) && error.allowed && error.message.includes(error.allowed), error.message);
      }
    }
  }
}

const noIntegers = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1.5, "3", null, 3n, 2 ** 53, {}];
const noNumbers = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, "0.5", null, [], 1n];
const noBooleans = [0, 1, "true", null, {}];

t.test("requests refuse every option out of range", async (t) => {
  refuses(t, request, {
    prompt: [3, null, ["a"]],
    messages: [
      [],
      "hi",
      null,
      [{ role: "user" }],
      [{ content: "x" }],
      [{ role: "", content: "x" }],
      [{ role: "user", content: 3 }],
    ],
    tokens: ["1", null, {}, [1.5], [Number.NaN], ["1"], [null], new Float32Array(1)],
    maxTokens: [0, -1, ...noIntegers],
    blockLength: [0, -1, 65, ...noIntegers],
    denoise: ["fast", null, 3, []],
    "denoise.strategy": ["fastest", 1, null],
    "denoise.steps": [0, -1, 65, ...noIntegers],
    "denoise.threshold": [-0.1, 1.1, ...noNumbers],
    "denoise.entropyBound": [-0.1, 1e10, ...noNumbers],
    "denoise.factor": [-0.1, 1e10, ...noNumbers],
    "denoise.confidence": ["sure", true, null],
    quality: ["best", 1, null, {}],
    temperature: [-1, 1e-9, 101, ...noNumbers],
    topK: [-1, ...noIntegers],
    topP: [0, -0.5, 1.01, ...noNumbers],
    minP: [-0.1, 1.01, ...noNumbers],
    repetitionPenalty: [0, 0.09, 10.1, -1, ...noNumbers],
    presencePenalty: [-2.1, 2.1, ...noNumbers],
    frequencyPenalty: [-2.1, 2.1, ...noNumbers],
    topLogprobs: [-1, 21, ...noIntegers],
    suppress: [3, "3", [1.5], [Number.NaN], null, new Array(1025).fill(1)],
    seed: [-1, -1n, 1n << 64n, 0.5, 2 ** 53, "1", null, Number.NaN],
    stop: ["", [""], ["a", ""], 3, [3], null],
    stopTokens: [3, "3", [1.5], [Number.NaN], null],
    ignoreEos: noBooleans,
    minTokens: [-1, ...noIntegers],
    logitBias: [
      3,
      "1",
      null,
      [1],
      { 1: 101 },
      { 1: -101 },
      { 1: Number.NaN },
      { 1: "2" },
      { x: 1 },
      new Map([[1.5, 1]]),
    ],
    drafts: noBooleans,
    n: [0, -1, 65, ...noIntegers],
    priority: [-101, 101, ...noIntegers],
    key: ["", 3, null, {}],
    deadline: [0, -1, ...noIntegers],
    cache: [true, "salt", null, []],
    "cache.salt": [3, null, {}],
    "cache.pin": noBooleans,
    highWaterMark: [0, -1, ...noIntegers],
    signal: [true, {}, null, "abort"],
  });
  for (const [options, option] of [
    [{ stopTokens: [560] }, "stopTokens[0]"],
    [{ suppress: [1, 560] }, "suppress[1]"],
    [{ tokens: [3, -1] }, "tokens[1]"],
    [{ logitBias: { 560: 1 } }, "logitBias[0]"],
  ] as const) {
    t.throws(() => request(options), { code: "TOKEN_OUT_OF_RANGE", option });
  }
  t.throws(() => request({ maxTokens: 3, minTokens: 4 }), { code: "INVALID_OPTION", option: "minTokens" });
});

t.test("load options out of range", async (t) => {
  refuses(t, load, {
    device: ["gpu", "cuda:x", "cuda:-1", "cuda:", "", 0, null],
    weights: ["f16", "", 16, null, "int2"],
    kvCache: [3, null, "big", { bytes: 1000, tokens: 10 }],
    "kvCache.dtype": ["f16", null, 3, "int4"],
    "kvCache.bytes": [0, -1, Number.NaN, 1.5, "1G", null],
    "kvCache.tokens": [0, -1, ...noIntegers],
    threads: [0, -1, 1025, ...noIntegers],
    maxConcurrent: [0, -1, 4097, ...noIntegers],
    prefillTokens: [0, -1, ...noIntegers],
    prefixCache: noBooleans,
    timeSteps: noBooleans,
    queue: [3, null, "long", true],
    "queue.maxRequests": [-1, ...noIntegers],
    "queue.maxTokens": [-1, 1.5, Number.NaN, "3", null],
    "queue.agingMs": [0, -1, ...noIntegers],
    weightCache: [0, 1, "", null, {}, []],
    weightCacheBytes: [-1, 0.5, "1", null],
    isa: ["", 3, null],
    onProgress: [3, "f", null, {}],
    signal: [true, {}, null],
    log: ["stderr", null, true],
  });
  for (const device of ["auto", "cpu", "cuda", "cuda:1"]) t.equal(load({ device }).native.device, device);
});

t.test("an unknown option is refused by name, with the one that was probably meant", async (t) => {
  const unknown = (parse: () => unknown, option: string, hint: string) =>
    t.throws(parse, { code: "INVALID_OPTION", option, message: `unknown option "${option}"; ${hint}` });
  unknown(() => request({ temprature: 1 }), "temprature", 'did you mean "temperature"?');
  unknown(() => request({ max_tokens: 1 }), "max_tokens", 'did you mean "maxTokens"?');
  unknown(() => request({ maxTokens: -1, topk: 1 }), "topk", 'did you mean "topK"?');
  unknown(
    () => request({ denoise: { tau: 1 } }),
    "denoise.tau",
    "known are strategy, steps, threshold, entropyBound, factor, confidence",
  );
  unknown(() => load({ kvCache: { byte: 1 } }), "kvCache.byte", 'did you mean "bytes"?');
  unknown(() => load({ thread: 1 }), "thread", 'did you mean "threads"?');
  unknown(
    () => request({ tokens: undefined, messages: [{ role: "user", contents: "x" }] }),
    "messages[0].contents",
    'did you mean "content"?',
  );
  for (const bad of [null, 3, "text", []]) {
    t.throws(() => load(bad as object), { code: "INVALID_OPTION", option: "options" });
    t.throws(() => parseRequest(bad as unknown as GenerateRequest, fakeInfo), {
      code: "INVALID_OPTION",
      option: "request",
    });
  }
});

t.test("exactly one prompt", async (t) => {
  const parse = (r: RequestFields) => parseRequest(r, fakeInfo);
  t.throws(() => parse({}), { code: "INVALID_OPTION", message: /no prompt; give exactly one of/ });
  t.throws(() => parse({ prompt: "a", tokens: [1] }), { code: "INVALID_OPTION", message: /more than one prompt/ });
  t.same(parse({ prompt: "a", tokens: undefined }).prompt, "a");
  t.same(parse({ tokens: Uint32Array.of(1, 2) }).prompt, Int32Array.of(1, 2));
});

t.test("a prompt needs a token, and room for one more in whole blocks", async (t) => {
  t.throws(() => checkPromptLength(0, 8, fakeInfo), { code: "EMPTY_PROMPT" });
  checkPromptLength(63, 8, fakeInfo);
  t.throws(() => checkPromptLength(64, 8, fakeInfo), { code: "PROMPT_TOO_LONG", message: /at most 63/ });
  checkPromptLength(59, 10, fakeInfo);
  t.throws(() => checkPromptLength(60, 10, fakeInfo), { code: "PROMPT_TOO_LONG", message: /at most 59/ });
});

t.test("what a request may take of the context and the cache", async (t) => {
  const room = (prompt: number, options: object, kv: object) =>
    roomFor(prompt, request(options).native, { ...fakeInfo, kv: { ...fakeInfo.kv, ...kv } });
  t.equal(room(60, {}, {}), 4);
  t.equal(room(10, { maxTokens: 5 }, {}), 5);
  t.equal(room(10, { blockLength: 10 }, {}), 50);
  t.throws(() => room(64, {}, {}), { code: "PROMPT_TOO_LONG" });
  const two = { pages: 2, tokens: 32 };
  t.equal(room(20, { maxTokens: 12 }, two), 12);
  t.throws(() => room(20, { maxTokens: 13 }, two), { code: "CACHE_TOO_SMALL", message: /need 40 .* holds 32/ });
  const straddling = { maxTokens: 1, blockLength: 10 };
  t.throws(() => room(20, straddling, two), { message: /need 30 .* holds 20/ }, "a page of 16 takes one block of 10");
});

t.test("defaults", async (t) => {
  const { native, seed } = request({});
  t.match(native, {
    maxTokens: 64,
    blockLength: 8,
    strategy: 0,
    steps: 0,
    threshold: 0.9,
    entropyBound: 0.35,
    factor: 2,
  });
  t.match(native, {
    temperature: 0,
    topK: 0,
    topP: 1,
    minP: 0,
    repetitionPenalty: 1,
    presencePenalty: 0,
    frequencyPenalty: 0,
    topLogprobs: 0,
    suppress: new Int32Array(),
    sampledConfidence: false,
    ignoreEos: false,
    minTokens: 0,
    drafts: false,
  });
  t.ok(Number.isSafeInteger(seed), "a seed is drawn");
  t.equal(native.seed, BigInt(seed));
  t.not(request({}).seed, seed, "and another one the next time");
  process.env.SDAR_CACHE_DIR = "/caches/sdar";
  t.same(load({}).native, {
    device: "auto",
    weights: "auto",
    threads: 0,
    isa: "",
    maxConcurrent: 64,
    cacheFolder: "/caches/sdar",
    cacheBytes: 64 * 2 ** 30,
    kvTokens: 0,
    kvBytes: 0,
    kvDtype: "",
    draftPath: "",
    draftWeights: "auto",
    draftBlockLength: 0,
    draftOnlyIfFaster: false,
    prefillTokens: 0,
    prefixCache: true,
    timeSteps: false,
    cudaWarpgroupMma: false,
    cudaDependentLaunch: false,
    cudaWideExperts: false,
  });
  t.match(native, { priority: 0, salt: "", pin: false });
  t.match(request({}), { n: 1, key: undefined, deadline: undefined, highWaterMark: 256 });
  t.same(load({}).queue, {
    maxRequests: 4096,
    maxTokens: Number.MAX_SAFE_INTEGER,
    maxBytes: 2 ** 28,
    agingMs: 1000,
    maxHeld: 256,
    heldMs: 60_000,
  });
});

t.test("quality stands for a strategy and its setting, and excludes denoise", async (t) => {
  const denoising = (options: object) => {
    const { strategy, steps, threshold, entropyBound, factor } = request(options).native;
    return { strategy, steps, threshold, entropyBound, factor };
  };
  t.match(denoising({ quality: "exact" }), { strategy: 3, steps: 0, entropyBound: 0.1 });
  t.match(denoising({ quality: "balanced" }), { strategy: 4, steps: 0, factor: 2 });
  t.match(denoising({ quality: "fast" }), { strategy: 4, steps: 0, factor: 5 });
  t.same(denoising({ quality: undefined }), denoising({}), "none of them is the default");
  t.same(denoising({ quality: "fast" }), denoising({ denoise: { strategy: "pairwise_factor", factor: 5 } }));
  for (const denoise of [{}, { steps: 3 }, { strategy: "sequential" }]) {
    const refused = { code: "INVALID_OPTION", option: "quality", message: /"fast".* either quality or denoise/ };
    t.throws(() => request({ quality: "fast", denoise }), refused);
  }
});

t.test("what is given arrives", async (t) => {
  const { native, seed, stop } = request({
    maxTokens: 1000,
    blockLength: 64,
    denoise: { strategy: "entropy_bounded", steps: 64, threshold: 0, entropyBound: 0, confidence: "sampled" },
    temperature: 0.5,
    topK: 3,
    topP: 1e-3,
    minP: 0.05,
    repetitionPenalty: 1.3,
    presencePenalty: -2,
    frequencyPenalty: 0.5,
    topLogprobs: 20,
    suppress: [9, 4, 9],
    seed: (1n << 64n) - 1n,
    stop: ["é", "b"],
    stopTokens: [5],
    ignoreEos: true,
    minTokens: 2,
    logitBias: new Map([
      [7, -100],
      [2, 1.5],
    ]),
    drafts: true,
    priority: -100,
    cache: { salt: "s", pin: true },
  });
  t.match(native, { priority: -100, salt: "s", pin: true, drafts: true });
  t.match(native, { maxTokens: 64, blockLength: 64, strategy: 3, steps: 64, threshold: 0, entropyBound: 0 });
  t.match(native, {
    sampledConfidence: true,
    temperature: 0.5,
    topK: 3,
    topP: 1e-3,
    minP: 0.05,
    repetitionPenalty: 1.3,
    presencePenalty: -2,
    frequencyPenalty: 0.5,
    topLogprobs: 20,
    suppress: Int32Array.of(9, 4),
    seed: 0xffffffffffffffffn,
  });
  t.same(native.stop, [Uint8Array.of(0xc3, 0xa9), Uint8Array.of(98)]);
  t.same(
    [native.stopTokens, native.biasIds, native.biasValues],
    [Int32Array.of(5), Int32Array.of(2, 7), Float32Array.of(1.5, -100)],
  );
  t.same([stop, seed], [["é", "b"], 0xffffffffffffffffn]);
  const pairwise = { strategy: "pairwise_factor", factor: 0 };
  t.match(request({ denoise: pairwise }).native, { strategy: 4, factor: 0 });
  t.match(request({ denoise: { strategy: "self_verified", threshold: 0 } }).native, { strategy: 5, threshold: 0 });
  const onGpu = () =>
    parseRequest({ prompt: "x", denoise: { strategy: "self_verified" } }, { ...fakeInfo, device: "cuda:0" });
  t.throws(onGpu, {
    code: "INVALID_OPTION",
    option: "denoise.strategy",
    message: /"self_verified".*any other on cuda:0/,
  });
  t.same(request({ logitBias: { 3: 1 }, stop: "x" }).native.biasIds, Int32Array.of(3));
  const { native: down } = load({
    device: "cpu",
    threads: 2,
    maxConcurrent: 3,
    weightCache: false,
    weightCacheBytes: 5,
    isa: "avx2",
    kvCache: { dtype: "f32", tokens: 9 },
    prefillTokens: 7,
    prefixCache: false,
    timeSteps: true,
    cuda: { warpgroupMma: true },
    draft: { path: "sdar-nano", weights: "int8", blockLength: 8, onlyIfFaster: true },
  });
  const kv = { kvTokens: 9, kvBytes: 0, kvDtype: "f32", prefillTokens: 7, prefixCache: false, timeSteps: true };
  const gpu = {
    weights: "auto",
    cacheBytes: 5,
    cudaWarpgroupMma: true,
    cudaDependentLaunch: false,
    cudaWideExperts: false,
  };
  const draft = { draftPath: shippedModelPath(), draftWeights: "int8", draftBlockLength: 8, draftOnlyIfFaster: true };
  t.same(down, { ...gpu, ...draft, device: "cpu", threads: 2, maxConcurrent: 3, cacheFolder: "", isa: "avx2", ...kv });
  t.equal(load({ weightCache: "/a/b" }).native.cacheFolder, "/a/b");
  delete process.env.SDAR_CACHE_DIR;
  process.env.XDG_CACHE_HOME = "/home/x/.c";
  t.equal(load({ weightCache: true }).native.cacheFolder, "/home/x/.c/sdar-engine");
  t.teardown(() => delete process.env.SDAR_CACHE_BYTES);
  process.env.SDAR_CACHE_BYTES = "1000";
  t.equal(load({}).native.cacheBytes, 1000);
  process.env.SDAR_CACHE_BYTES = "1 GB";
  t.throws(() => load({}), { code: "INVALID_OPTION", message: /SDAR_CACHE_BYTES/ });
});
