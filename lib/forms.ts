// Compiled forms of answers, kept by what they say: compiling takes a thread of its own for up to a second.
import { createHash } from "node:crypto";
import type { NativeEngine, NativeForm, NativeModelInfo } from "./binding.js";
import { SdarError, wrapError } from "./errors.js";
import type { ParsedRequest } from "./options.js";
import { roomFor } from "./room.js";
import type { Encoding, Texts } from "./text/texts.js";
import { answerForm } from "./tool-form.js";
import { Turns } from "./turns.js";

/** Compiled ones that are kept for the next request, and their bytes together. */
const mostKept = 256;
const mostBytes = 128 * 2 ** 20;
/** A form that many ask for at once is one. */
const mostWaiting = 256;

export class Forms {
  readonly #native: NativeEngine;
  readonly #texts: Texts;
  /** by a hash of their JSON, the last used last */
  readonly #forms = new Map<string, { form: Promise<NativeForm>; bytes: number }>();
  readonly #turns = new Turns();

  constructor(native: NativeEngine, texts: Texts) {
    this.#native = native;
    this.#texts = texts;
  }

  /** The prompt once the form of its answer is compiled, too, and put into the request. */
  add({ native, format, tools, key }: ParsedRequest, given: Int32Array | Encoding, model: NativeModelInfo): Encoding {
    const encoding: Encoding =
      given instanceof Int32Array
        ? { prompt: Promise.resolve({ tokens: given, reasoning: "never" }), cancel() {} }
        : given;
    const prompt = encoding.prompt.then(async (found) => {
      const json = answerForm(tools, found.reasoning, format?.json);
      if (json === undefined) return found;
      const { form, leastTokens } = await this.#get(json, key ?? "");
      const left = roomFor(found.tokens.length, native, model);
      if (left < leastTokens) {
        const needs = `${format ? "format needs" : "tools need"} at least ${leastTokens} tokens`;
        throw new SdarError("INVALID_OPTION", `${needs}; maxTokens and the context leave ${left}`, {
          option: "maxTokens",
          allowed: `at least ${leastTokens}`,
        });
      }
      native.form = form;
      return found;
    });
    return { prompt, cancel: encoding.cancel };
  }

  /** Rejects with INVALID_OPTION, QUEUE_FULL, and what the engine's end makes of it. */
  #get(json: string, key: string): Promise<NativeForm> {
    const hash = createHash("sha256").update(json).digest("base64");
    const known = this.#forms.get(hash);
    if (known) {
      this.#forms.delete(hash);
      this.#forms.set(hash, known);
      return known.form;
    }
    if (this.#turns.count >= mostWaiting)
      return Promise.reject(
        new SdarError("QUEUE_FULL", `the queue is full: ${this.#turns.count} forms wait to be compiled`, {
          retryAfterMs: 1000,
        }),
      );
    const form = this.#turns.run(key, () => this.#compile(json));
    const entry = { form, bytes: 0 };
    this.#forms.set(hash, entry);
    form.then(
      ({ bytes }) => {
        entry.bytes = bytes;
        this.#forget();
      },
      () => this.#forms.delete(hash),
    );
    return form;
  }

  async #compile(json: string): Promise<NativeForm> {
    try {
      const form = await this.#native.compileForm(json);
      if (form.runs.length > 0) {
        const { ids, counts } = await this.#texts.split(form.runs);
        this.#native.setSplits(form.form, ids, counts);
      }
      return form;
    } catch (error) {
      const { code, message } = wrapError(error);
      const option = /^tools\[\d+\]\.parameters/.exec(message)?.[0] ?? "format";
      throw new SdarError(code, message, { ...(code === "INVALID_OPTION" && { option }), cause: error });
    }
  }

  #forget(): void {
    let bytes = 0;
    for (const entry of this.#forms.values()) bytes += entry.bytes;
    for (const [key, entry] of this.#forms) {
      if (this.#forms.size <= mostKept && bytes <= mostBytes) return;
      bytes -= entry.bytes;
      this.#forms.delete(key);
    }
  }
}
