// A conversation: what was said, and which of it still goes into the prompt.
import type { ConversationFields } from "./conversation.js";
import { SdarError, wrapError } from "./errors.js";
import { laterRun } from "./run-handle.js";
import type { GenerateDefaults, GenerateOptions, GenerateRequest, GenerateResult, Message, Run } from "./types.js";

/** What `engine.chat` takes; what `chat.toJSON()` gives can be passed again. */
export interface ChatOptions {
  /** Goes before all messages, and is never cut. */
  system?: string;
  /** what was said before */
  messages?: readonly Message[];
  /**
   * Whether the oldest messages are left out of the prompt once it leaves no room for an answer. So many are left out at once
   * that the prompt is half as long as it may be: until it is full again, prompts begin alike, and are found in the prefix
   * cache. With `false` a conversation that is too long rejects with PROMPT_TOO_LONG.
   *
   * @default true
   */
  contextShift?: boolean;
  /**
   * How many of `messages` are left out of the prompt already.
   *
   * @default 0
   */
  cut?: number;
  /** Options for every answer; those given to `send` go before. */
  generate?: GenerateDefaults;
}

/** What a chat can be made of again. */
export interface ChatJson {
  system?: string;
  messages: Message[];
  contextShift: boolean;
  cut: number;
}

export interface ChatState {
  system: string | undefined;
  messages: Message[];
  contextShift: boolean;
  cut: number;
  generate: GenerateDefaults;
}

/** What a chat needs of its engine. */
export interface ChatEngine {
  readonly model: { contextLength: number; blockLength: number };
  generate(request: GenerateRequest): Run;
  countTokens(
    messages: readonly Message[],
    options: Pick<ConversationFields, "tools" | "templateOptions">,
  ): Promise<number>;
}

/** Options of one answer. */
export type SendOptions = Omit<GenerateOptions, "n"> & Omit<ConversationFields, "continueFinalMessage">;

/** Tokens that an answer has room for at least, when nobody says how many it may have: this part of the context. */
const answerShare = 1 / 4;

/**
 * A conversation with the model, from `engine.chat`. It keeps the messages; every `send` is a request of its own.
 *
 * @example
 * const chat = engine.chat({ system: "Answer briefly." });
 * for await (const text of chat.send("Sort: 92 61 75").textStream) process.stdout.write(text);
 * console.log(await chat.send("And backwards?").text());
 */
export class Chat {
  readonly #engine: ChatEngine;
  readonly #state: ChatState;
  #busy = false;

  /** @internal */
  constructor(engine: ChatEngine, state: ChatState) {
    this.#engine = engine;
    this.#state = state;
  }

  /** What was said so far, without the system message. */
  get messages(): readonly Message[] {
    return this.#state.messages.map((message) => ({ ...message }));
  }

  /** How many of the oldest messages are left out of the prompt. */
  get cut(): number {
    return this.#state.cut;
  }

  /**
   * Says something as the user, or adds messages such as the results of tools, and begins the answer. All are in `messages`
   * once the run has ended, the answer with its calls; an aborted one leaves what was answered so far, one that failed leaves
   * none, so that it can be sent again. One at a time: while an answer is being generated, the run rejects with
   * INVALID_OPTION.
   *
   * @example
   * const { toolCalls = [] } = await chat.send("Is it warm in Rome?", { tools }).result();
   * const results = toolCalls.map(({ id, value }) => ({ role: "tool", toolCallId: id, content: weather(value) }));
   * console.log(await chat.send(results, { tools }).text());
   */
  send(said: string | readonly Message[], options: SendOptions = {}): Run {
    const added: readonly Message[] = Array.isArray(said) ? [...said] : [{ role: "user", content: said as string }];
    if (this.#busy) return laterRun(Promise.reject(busy()));
    this.#busy = true;
    const run = laterRun(this.#start(added, options));
    run.result().then(
      (result) => this.#heard(added, result),
      () => {
        this.#busy = false;
      },
    );
    return run;
  }

  /** A second conversation that goes on from what was said so far; the two share their past in the prefix cache. */
  fork(): Chat {
    return new Chat(this.#engine, { ...this.#state, messages: [...this.#state.messages] });
  }

  /** What `engine.chat` takes to go on later; without `generate`. */
  toJSON(): ChatJson {
    const { system, contextShift, cut } = this.#state;
    return { ...(system === undefined ? {} : { system }), messages: [...this.messages], contextShift, cut };
  }

  #heard(added: readonly Message[], { text, reasoning, toolCalls }: GenerateResult): void {
    this.#busy = false;
    this.#state.messages.push(...added, {
      role: "assistant",
      content: text,
      ...(reasoning !== undefined && { reasoning }),
      ...(toolCalls && { toolCalls }),
    });
  }

  async #start(added: readonly Message[], options: SendOptions): Promise<Run> {
    try {
      if (this.#state.contextShift) await this.#makeRoom(added, options);
      const { generate, cut } = this.#state;
      const dial = (options.quality ?? options.denoise) ? { quality: undefined, denoise: undefined } : {};
      const messages = this.#prompt(cut, added);
      return this.#engine.generate({ ...generate, ...dial, ...options, messages } as GenerateRequest);
    } catch (error) {
      throw wrapError(error);
    }
  }

  #prompt(cut: number, added: readonly Message[]): Message[] {
    const { system, messages } = this.#state;
    const first = system === undefined ? [] : [{ role: "system", content: system }];
    return [...first, ...messages.slice(cut), ...added];
  }

  async #makeRoom(added: readonly Message[], options: SendOptions): Promise<void> {
    const { contextLength } = this.#engine.model;
    const settings = { ...this.#state.generate, ...options };
    const { maxTokens = Math.floor(contextLength * answerShare), tools, templateOptions } = settings;
    const given = { ...(tools && { tools }), ...(templateOptions && { templateOptions }) };
    const room = contextLength - Math.min(maxTokens, contextLength / 2);
    const fits = async (cut: number, most: number) =>
      (await this.#engine.countTokens(this.#prompt(cut, added), given)) <= most;
    if (this.#state.messages.length <= this.#state.cut || (await fits(this.#state.cut, room))) return;
    const cut = await this.#cutFor((cut) => fits(cut, room / 2));
    // Results of tools stay with their calls, and with what was asked.
    const asked = this.#state.messages.findLastIndex(({ role }) => role === "user");
    this.#state.cut = added[0]?.role === "tool" ? Math.max(this.#state.cut, Math.min(cut, asked)) : cut;
  }

  /** The fewest messages left out that are enough: what a user says stays with its answer. */
  async #cutFor(enough: (cut: number) => Promise<boolean>): Promise<number> {
    const { messages, cut } = this.#state;
    const starts = [...messages.keys()].filter((i) => i > cut && messages[i]?.role === "user");
    let [low, high] = [0, starts.length];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (await enough(starts[middle] as number)) high = middle;
      else low = middle + 1;
    }
    return starts[low] ?? messages.length;
  }
}

const busy = () =>
  new SdarError("INVALID_OPTION", "send: the last answer is still being generated; wait for its result or abort it", {
    option: "send",
  });
