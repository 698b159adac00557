// A line of data to samples: token ids, and which of them are the answer. Runs in the thread that prepares data.
import { z } from "zod";
import type { Conversation, Message } from "../conversation.js";
import { conversationSchemas, messagesSchema, parseConversation } from "../conversation-schema.js";
import { SdarError } from "../errors.js";
import { check, strictObject } from "../schema.js";
import { MessageText, type PromptText } from "../text/prompt.js";
import type { ChatTemplate } from "../text/template.js";
import type { Tokenizer } from "../text/tokenizer.js";

/** Tokens of a sample: 2 · id + 1 where it is part of the answer, else 2 · id. */
export type Sample = number[];

const { tools, templateOptions } = conversationSchemas;
const schemas = {
  messages: strictObject({
    messages: messagesSchema,
    tools: tools.optional(),
    templateOptions: templateOptions.optional(),
  }),
  prompt: strictObject({ prompt: z.string({ error: "a string" }), completion: z.string({ error: "a string" }) }),
  text: strictObject({ text: z.string({ error: "a string" }) }),
};
/** What a line may say; other fields are passed over. */
const fields = {
  messages: ["messages", "tools", "templateOptions"],
  prompt: ["prompt", "completion"],
  text: ["text"],
} as const;
/** OpenAI's and the templates' names of what messages have. */
const otherNames = { reasoning_content: "reasoning", tool_calls: "toolCalls", tool_call_id: "toolCallId" };

const invalid = (message: string) => new SdarError("DATA_INVALID", message);

export class SampleMaker {
  readonly #tokenizer: Tokenizer;
  readonly #messages: MessageText | undefined;
  readonly #ends: ReadonlySet<number>;
  readonly #end: number | undefined;

  /** `ends` are ids that end an answer; the first is put behind texts that have none. */
  constructor(tokenizer: Tokenizer, template: ChatTemplate | undefined, ends: readonly number[]) {
    this.#tokenizer = tokenizer;
    this.#messages = template && new MessageText(template, tokenizer.added);
    this.#ends = new Set(ends);
    this.#end = ends[0];
  }

  /** Throws DATA_INVALID, TEMPLATE_MISSING, TEMPLATE_FAILED. */
  make(bytes: Buffer): Sample[] {
    const line = parse(bytes);
    const kind = (["messages", "prompt", "text"] as const).filter((name) => name in line);
    if (kind.length !== 1)
      throw invalid(
        `has ${kind.length === 0 ? "none" : "more than one"} of messages, prompt with completion, and text`,
      );
    const only = kind[0] as keyof typeof schemas;
    const given = Object.fromEntries(fields[only].flatMap((name) => (name in line ? [[name, line[name]]] : [])));
    if (only === "messages") {
      if (Array.isArray(given.messages)) given.messages = given.messages.map(renamed);
      const { messages, ...rest } = check(schemas.messages, given, "line");
      return this.#conversation(parseConversation(messages, rest as object), messages);
    }
    if (only === "prompt") {
      const { prompt, completion } = check(schemas.prompt, given, "line");
      const before = this.#encode(prompt, true);
      const after = this.#ended(this.#encode(completion, false));
      return [[...marked(before, false), ...marked(after, true)]];
    }
    const { text } = check(schemas.text, given, "line");
    if (text === "") throw invalid("text is empty");
    return [marked(this.#ended(this.#encode(text, true)), true)];
  }

  /**
   * A sample for the whole conversation, where the template writes its beginning alike however it goes on, else one for each
   * answer that it writes otherwise. What is learnt of a turn is what the template puts behind the request for an answer.
   */
  #conversation(conversation: Conversation, messages: readonly Message[]): Sample[] {
    const renderer = this.#messages;
    if (!renderer)
      throw new SdarError("TEMPLATE_MISSING", "messages need a chat template, which the checkpoint has not");
    const turns = messages.flatMap(({ role }, at) => (role === "assistant" ? [at] : []));
    if (turns.length === 0) throw invalid("messages: none is the assistant's, so there is nothing to learn");
    const render = (count: number, ending: Conversation["ending"]): Rendered => {
      const part = { ...conversation, messages: conversation.messages.slice(0, count), ending };
      const { text, restore } = renderer.render(part, false);
      return { text, restore, plain: restore ? restore(text) : text };
    };
    const samples: Sample[] = [];
    let current: { plain: string; tokens: Sample } | undefined;
    for (const turn of turns) {
      const before = render(turn, "answer");
      const whole = render(turn + 1, "message");
      if (!whole.plain.startsWith(before.plain))
        throw invalid(`messages[${turn}]: the chat template writes it otherwise than it asks for it`);
      if (!current || !before.plain.startsWith(current.plain)) {
        current = { plain: "", tokens: [] };
        samples.push(current.tokens);
      }
      push(current.tokens, marked(this.#piece(before, current.plain.length), false));
      const answer = this.#piece(whole, before.plain.length);
      const end = answer.findLastIndex((id) => this.#ends.has(id)) + 1 || answer.length;
      push(current.tokens, marked(answer.subarray(0, end), true));
      push(current.tokens, marked(answer.subarray(end), false));
      current.plain = whole.plain;
    }
    return samples.map(withoutRest);
  }

  /** Of a text from a place on; stand-ins are as long as what they stand for. */
  #piece({ text, restore }: PromptText, from: number): Int32Array {
    return this.#tokenizer.encode(text.slice(from), { addSpecial: false, ...(restore && { restore }) });
  }

  #encode(text: string, addSpecial: boolean): Int32Array {
    return this.#tokenizer.encode(text, { addSpecial });
  }

  #ended(ids: Int32Array): Int32Array {
    const end = this.#end;
    return end === undefined || this.#ends.has(ids.at(-1) ?? -1) ? ids : Int32Array.from([...ids, end]);
  }
}

type Rendered = PromptText & { plain: string };

function parse(bytes: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw invalid(`is not valid JSON: ${(cause as Error).message}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw invalid("is not a JSON object");
  return value as Record<string, unknown>;
}

function renamed(message: unknown): unknown {
  if (typeof message !== "object" || message === null) return message;
  // Those who write JSON from columns have null where a message has no such field.
  const entries = Object.entries(message).map(([name, value]) => [
    otherNames[name as never] ?? name,
    value ?? undefined,
  ]);
  return Object.fromEntries(entries);
}

function marked(ids: Int32Array, answer: boolean): Sample {
  return Array.from(ids, (id) => 2 * id + (answer ? 1 : 0));
}

function push(to: Sample, tokens: Sample): void {
  for (const token of tokens) to.push(token);
}

/** Without what comes after the last token of an answer. */
function withoutRest(sample: Sample): Sample {
  return sample.slice(0, sample.findLastIndex((token) => token % 2 === 1) + 1);
}
