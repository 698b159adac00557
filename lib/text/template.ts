// Conversations to text, by the checkpoint's chat template.
import { join } from "node:path";
import { readOptional } from "../checkpoint.js";
import type { Conversation } from "../conversation.js";
import { invalidOption, SdarError } from "../errors.js";
import { compileTemplate } from "../jinja/template.js";
import { type ReasoningStart, reasoningStart, textArguments, unfinished } from "./conversation-text.js";

export class ChatTemplate {
  /** whether it can be given tools, whose calls are JSON in <tool_call> */
  readonly takesTools: boolean;
  /** characters of its text */
  readonly length: number;
  readonly #source: string;
  readonly #render: (variables: Record<string, unknown>) => string;
  readonly #specialTokens: Record<string, string>;

  /**
   * `config` is that of the tokenizer: it names the special tokens a template may use. `origin` is for messages. Never
   * throws: why there is no template, or why it cannot be parsed, is kept for `render`; prompts work without it.
   */
  constructor(source: string | SdarError, config: Record<string, unknown>, origin: string) {
    this.#specialTokens = specialTokens(config);
    this.#source = typeof source === "string" ? source : "";
    this.length = this.#source.length;
    // Qwen3-Coder's are <function=…> in the same mark.
    const [knows, others] = ["<tool_call>", "<function="].map((mark) => this.#source.includes(mark));
    this.takesTools = /\btools\b/.test(this.#source) && knows === true && !others;
    const compiled = typeof source === "string" ? compile(source, origin) : source;
    this.#render =
      compiled instanceof SdarError
        ? () => {
            throw compiled;
          }
        : compiled;
  }

  /**
   * chat_template.jinja, else `chat_template` of tokenizer_config.json: one template, or a list of named ones of which
   * "default" is taken. Undefined when there is none.
   */
  static load(folder: string, config: Record<string, unknown>): ChatTemplate | undefined {
    const file = join(folder, "chat_template.jinja");
    const source = readOptional(file);
    if (source !== undefined) return new ChatTemplate(source, config, file);
    const configFile = join(folder, "tokenizer_config.json");
    const chosen = chooseTemplate(config.chat_template, configFile);
    return chosen === undefined ? undefined : new ChatTemplate(chosen, config, configFile);
  }

  /**
   * The text that asks for the assistant's next message, as transformers' apply_chat_template(messages, tools,
   * add_generation_prompt=True, **variables) makes it. `variables` are the template's others, such as `tools` or
   * `enable_thinking`. Throws TEMPLATE_FAILED, also when the template refuses.
   */
  render(messages: readonly object[], variables: Record<string, unknown> = {}): string {
    const given = { tools: null, documents: null, ...this.#specialTokens, add_generation_prompt: true, ...variables };
    try {
      return this.#render({ ...given, messages });
    } catch (cause) {
      if (cause instanceof SdarError) throw cause;
      throw new SdarError("TEMPLATE_FAILED", `the chat template refused the messages: ${(cause as Error).message}`, {
        cause,
      });
    }
  }

  /** A conversation with what belongs to it. Throws TEMPLATE_FAILED, also where a last message cannot be gone on with. */
  renderConversation(given: Conversation): string {
    const calling = given.messages.findIndex(({ tool_calls }) => tool_calls);
    if (calling >= 0 && !this.#source.includes("tool_calls"))
      throw invalidOption(
        `messages[${calling}].toolCalls`,
        given.messages,
        "none, for the chat template knows no calls",
      );
    const conversation = /arguments is string/.test(this.#source) ? given : textArguments(given);
    const { tools = null, options, ending } = conversation;
    const variables = { ...options, tools, add_generation_prompt: ending === "answer" };
    if (ending !== "unfinished") return this.render(conversation.messages, variables);
    return unfinished(conversation, (messages) => this.render(messages, variables));
  }

  /** Where the answer to a conversation stands, whose text ends like this. */
  reasoningStart(conversation: Conversation, text: string): ReasoningStart {
    return /<\/?think>/.test(this.#source) ? reasoningStart(conversation, text) : "never";
  }
}

function compile(source: string, origin: string): ((variables: Record<string, unknown>) => string) | SdarError {
  try {
    return compileTemplate(source);
  } catch (cause) {
    return new SdarError("TEMPLATE_FAILED", `the chat template of ${origin}: ${(cause as Error).message}`, { cause });
  }
}

function chooseTemplate(templates: unknown, file: string): string | SdarError | undefined {
  if (templates === undefined || templates === null) return undefined;
  if (typeof templates === "string") return templates;
  const named = new Map<unknown, unknown>(
    Array.isArray(templates)
      ? templates.map((t: { name?: unknown; template?: unknown } | null) => [t?.name, t?.template])
      : Object.entries(templates),
  );
  const chosen = named.size === 1 ? [...named.values()][0] : named.get("default");
  if (typeof chosen === "string") return chosen;
  const names = [...named.keys()].join(", ");
  return new SdarError(
    "TEMPLATE_FAILED",
    `${file}: chat_template must be text or have one named "default"; it has: ${names}`,
  );
}

/** bos_token, eos_token and the like; each is written as text or as an object with `content`. */
function specialTokens(config: Record<string, unknown>): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const [name, value] of Object.entries(config)) {
    if (!name.endsWith("_token")) continue;
    const content = typeof value === "object" ? (value as { content?: unknown } | null)?.content : value;
    if (typeof content === "string") tokens[name] = content;
  }
  return tokens;
}
