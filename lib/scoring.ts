// Requests whose text is given: scores, and how probable each choice of a format is.
import type { NativeModelInfo } from "./binding.js";
import { invalidOption, SdarError } from "./errors.js";
import type { ParsedRequest } from "./options.js";
import { roomFor } from "./room.js";
import { type Score, scoredChoices, scoreOf } from "./score.js";
import type { Serving } from "./serving.js";
import type { Encoding, Texts } from "./text/texts.js";
import type { parseScored } from "./tool-options.js";
import type { RequestFields, Run } from "./types.js";

const sharedNames = ["blockLength", "logitBias", "priority", "key", "deadline", "cache"] as const;

export class Scoring {
  readonly #serving: Serving;
  readonly #texts: Texts;
  readonly #judge: { parseScored: typeof parseScored };
  readonly #model: NativeModelInfo;

  constructor(
    serving: Serving,
    texts: Texts,
    judge: { parseScored: typeof parseScored },
    model: Readonly<NativeModelInfo>,
  ) {
    this.#serving = serving;
    this.#texts = texts;
    this.#judge = judge;
    this.#model = model;
  }

  /** Of a request that parseScored made. Rejects as a run does, and with ABORTED. */
  async score(
    parsed: ParsedRequest,
    prompt: Int32Array,
    text: Int32Array,
    endToken: boolean,
    began: number,
  ): Promise<Score> {
    const given = Int32Array.from([...text, ...(endToken ? this.#model.endTokenIds.slice(0, 1) : [])]);
    const native = { ...parsed.native, given, maxTokens: given.length };
    const left = roomFor(prompt.length, native, this.#model);
    if (left < given.length)
      throw invalidOption("completion", given, `at most ${left} tokens after a prompt of ${prompt.length}`);
    const result = await this.#serving.start({ ...parsed, native }, prompt, began).result();
    if (result.finishReason === "abort") throw new SdarError("ABORTED", "scoring was aborted");
    return scoreOf(result);
  }

  /** A run whose result tells how probable each choice is. */
  withChoices<Value>(
    run: Run<Value>,
    choices: readonly string[],
    request: RequestFields,
    prompt: Int32Array | Encoding,
    began: number,
  ): Run<Value> {
    const abort = new AbortController();
    const scored = this.#scoreAll(choices, request, prompt, abort.signal, began);
    // Who does not ask is not told.
    scored.catch(() => {});
    run.result().then(
      ({ finishReason }) => finishReason !== "end" && finishReason !== "length" && abort.abort(),
      () => abort.abort(),
    );
    const result = async () => {
      const whole = await run.result();
      const known = abort.signal.aborted ? undefined : await scored;
      return known ? Object.freeze({ ...whole, choices: known }) : whole;
    };
    return Object.freeze(Object.create(run, { result: { value: result, enumerable: true } }));
  }

  async #scoreAll(
    choices: readonly string[],
    request: RequestFields,
    prompt: Int32Array | Encoding,
    signal: AbortSignal,
    began: number,
  ) {
    const shared = Object.fromEntries(
      sharedNames.filter((name) => request[name] !== undefined).map((name) => [name, request[name]]),
    );
    const parsed = this.#judge.parseScored({ ...shared, tokens: [0], signal, whenFull: "wait" }, this.#model);
    const found = prompt instanceof Int32Array ? { tokens: prompt, reasoning: "never" } : await prompt.prompt;
    // What comes before the choice is not known.
    if (found.reasoning === "open") return undefined;
    const { ids, counts } = await this.#texts.split([...choices]);
    const most = { ...parsed.native, maxTokens: Number.MAX_SAFE_INTEGER };
    const room = roomFor(found.tokens.length, most, this.#model);
    let end = 0;
    const scores = Array.from(counts, (count) => {
      const begin = end;
      end += count;
      if (count + 1 > room) return { logprob: Number.NEGATIVE_INFINITY };
      return this.score(parsed, found.tokens, ids.subarray(begin, end), true, began);
    });
    return scoredChoices(choices, await Promise.all(scores));
  }
}
