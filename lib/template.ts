// Conversations to text, by the checkpoint's chat template.
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { readOptional } from "./checkpoint.js";
import { SdarError } from "./errors.js";
import type { Message } from "./types.js";

export class ChatTemplate {
  readonly #template: Template;
  readonly #specialTokens: Record<string, string>;

  /** `config` is that of the tokenizer: it names the special tokens a template may use. `origin` is for messages. */
  constructor(source: string, config: Record<string, unknown>, origin: string) {
    try {
      this.#template = new Template(source);
    } catch (cause) {
      throw new SdarError("TEMPLATE_FAILED", `the chat template of ${origin}: ${(cause as Error).message}`, { cause });
    }
    this.#specialTokens = specialTokens(config);
  }

  /**
   * chat_template.jinja, else `chat_template` of tokenizer_config.json: one template, or a list of named ones of which
   * "default" is taken. Undefined when there is none; TEMPLATE_FAILED when it cannot be parsed.
   */
  static load(folder: string, config: Record<string, unknown>): ChatTemplate | undefined {
    const file = join(folder, "chat_template.jinja");
    const source = readOptional(file);
    if (source !== undefined) return new ChatTemplate(source, config, file);
    const configFile = join(folder, "tokenizer_config.json");
    const chosen = chooseTemplate(config.chat_template, configFile);
    return chosen === undefined ? undefined : new ChatTemplate(chosen, config, configFile);
  }

  /** The text that asks for the assistant's next message. Throws TEMPLATE_FAILED, also when the template refuses. */
  render(messages: readonly Message[]): string {
    try {
      return this.#template.render({ ...this.#specialTokens, messages, add_generation_prompt: true });
    } catch (cause) {
      throw new SdarError("TEMPLATE_FAILED", `the chat template refused the messages: ${(cause as Error).message}`, {
        cause,
      });
    }
  }
}

function chooseTemplate(templates: unknown, file: string): string | undefined {
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
  throw new SdarError(
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
