// The thread that reads a checkpoint's text files, renders conversations and tokenizes: what may take long, or for ever, with
// files and texts of strangers. See lane.ts for the side that talks to it.
import { parentPort, workerData } from "node:worker_threads";
import type { Conversation } from "../conversation.js";
import { SdarError, wrapError } from "../errors.js";
import { loadText } from "./files.js";
import { MessageText } from "./prompt.js";
import {
  type Answer,
  type AnswerValue,
  type EncodedPrompt,
  type EncodeTask,
  type ModelIds,
  type RenderTask,
  type Splits,
  type SplitTask,
  type Stage,
  stages,
  type Task,
  type TextFiles,
  type TextTables,
  type WorkerData,
} from "./protocol.js";
import type { ChatTemplate } from "./template.js";
import { contentOf, type EncodeOptions, type Tokenizer } from "./tokenizer.js";

const { folder, stage, model } = workerData as WorkerData;

const at = (name: Stage) => Atomics.store(stage, 0, stages.indexOf(name));

function load() {
  const { tokenizer, template, config, map } = loadText(folder, at);
  const eos = contentOf(config.eos_token) ?? contentOf(map.eos_token);
  return { tokenizer, template, eosTokenId: eos === undefined ? undefined : tokenizer.idOf(eos) };
}

class Texts {
  readonly #tokenizer: Tokenizer;
  readonly #template: ChatTemplate | undefined;
  #messages: MessageText | undefined;
  #vocabSize = 0;
  readonly files: TextFiles;

  constructor() {
    const { tokenizer, template, eosTokenId } = load();
    this.#tokenizer = tokenizer;
    this.#template = template;
    const takesTools = template?.takesTools === true && !this.#hides("<tool_call>");
    this.files = { hasTemplate: template !== undefined, takesTools, eosTokenId };
    if (model) this.#know(model);
  }

  /** Whether it is a special token, which has no text in an answer. */
  #hides(mark: string): boolean {
    return this.#tokenizer.added.control.some(({ content, special }) => special && content === mark);
  }

  #know({ vocabSize, control }: ModelIds): void {
    this.#vocabSize = vocabSize;
    this.#tokenizer.addControl(control);
    this.#messages = this.#template && new MessageText(this.#template, this.#tokenizer.added);
  }

  describe(model: ModelIds): TextTables {
    at("tokenizer");
    this.#know(model);
    const tokenizer = this.#tokenizer;
    return {
      tokenBytes: tokenizer.tokenBytes(model.vocabSize),
      lengthBound: tokenizer.lengthBound,
      controlTokens: tokenizer.added.control,
    };
  }

  encode(task: EncodeTask): EncodedPrompt {
    const encoded = this.#encode(task);
    const odd = encoded.tokens.find((id) => id >= this.#vocabSize);
    if (odd === undefined) return encoded;
    throw new SdarError(
      "TOKENIZER_INVALID",
      `tokenizer.json of ${folder} has token ${odd}; the model has ${this.#vocabSize}`,
    );
  }

  /** What the template makes of messages, as text. */
  render({ conversation }: RenderTask): string {
    at("render");
    if (!this.#template) throw noTemplate();
    return this.#template.renderConversation(conversation);
  }

  /** As parts of answers: no special tokens around or in them. */
  split({ texts }: SplitTask): Splits {
    at("encode");
    const options = { addSpecial: false, parse: "text", limit: Number.MAX_SAFE_INTEGER } as const;
    const splits = texts.map((text) => this.#tokenizer.encode(text, options));
    return {
      ids: Int32Array.from(splits.flatMap((ids) => [...ids])),
      counts: Int32Array.from(splits, (s) => s.length),
    };
  }

  #encode({ prompt, parseSpecial, limit, countUpTo }: EncodeTask): EncodedPrompt {
    at("encode");
    const isText = typeof prompt === "string";
    const { text, restore, reasoning } = isText
      ? { text: prompt, restore: undefined, reasoning: "never" as const }
      : this.#rendered(prompt, parseSpecial);
    // A template writes the special tokens itself.
    const options: Omit<EncodeOptions, "limit"> = isText
      ? { addSpecial: true, parse: parseSpecial ? "all" : "text" }
      : { addSpecial: false, ...(restore && { restore }) };
    try {
      return { tokens: this.#tokenizer.encode(text, { ...options, limit }), reasoning };
    } catch (error) {
      if (!(error instanceof SdarError && error.code === "PROMPT_TOO_LONG") || text.length > countUpTo) throw error;
      const { message } = error;
      throw new SdarError("PROMPT_TOO_LONG", message, { promptTokens: this.#tokenizer.encode(text, options).length });
    }
  }

  #rendered(conversation: Conversation, parseSpecial: boolean) {
    at("render");
    if (!this.#messages || !this.#template) throw noTemplate();
    const { text, restore } = this.#messages.render(conversation, parseSpecial);
    const reasoning = this.#hides("</think>") ? "never" : this.#template.reasoningStart(conversation, text);
    at("encode");
    return { text, restore, reasoning };
  }
}

const noTemplate = () => new SdarError("TEMPLATE_MISSING", `${folder} has no chat template`);

function answerTo(work: () => AnswerValue): Answer {
  try {
    return { value: work() };
  } catch (cause) {
    const { code, message, option, allowed, promptTokens } = wrapError(cause);
    const details = { ...(option && { option }), ...(allowed && { allowed }), ...(promptTokens && { promptTokens }) };
    return { error: { code, message, details } };
  }
}

function tell(answers: Answer[]): void {
  const moved: ArrayBuffer[] = [];
  for (const answer of answers)
    if ("value" in answer && typeof answer.value === "object" && "tokens" in answer.value)
      moved.push(answer.value.tokens.buffer as ArrayBuffer);
  parentPort?.postMessage(answers, moved);
}

let texts: Texts | undefined;

function perform(task: Task): AnswerValue {
  if (!texts) throw new SdarError("INTERNAL", "the text files were not read");
  if (task.kind === "describe") return texts.describe(task.model);
  if (task.kind === "split") return texts.split(task);
  return task.kind === "render" ? texts.render(task) : texts.encode(task);
}

tell([
  answerTo(() => {
    texts = new Texts();
    return texts.files;
  }),
]);
parentPort?.on("message", (tasks: Task[]) => {
  tell(
    tasks.map((task, index) => {
      Atomics.store(stage, 1, index);
      return answerTo(() => perform(task));
    }),
  );
});
