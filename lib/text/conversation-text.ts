// What a chat template does not do itself: calls whose arguments are text, a last message that goes on, and where reasoning begins.
import type { Conversation, TemplateMessage } from "../conversation.js";
import { SdarError } from "../errors.js";

/** Whether an answer is in a `<think>` part from its first token on, may begin with one, or has none. */
export type ReasoningStart = "open" | "possible" | "never";

const open = "<think>";
const close = "</think>";

/** For templates that write `arguments` as JSON whatever they are: text becomes what it is the JSON of. */
export function textArguments(conversation: Conversation): Conversation {
  const parsed = (given: string | object): string | object => {
    try {
      return typeof given === "string" ? JSON.parse(given) : given;
    } catch {
      return given;
    }
  };
  const messages = conversation.messages.map((message) => {
    const { tool_calls: calls } = message;
    if (!calls) return message;
    const call = (each: (typeof calls)[number]) => ({
      ...each,
      function: { ...each.function, arguments: parsed(each.function.arguments) },
    });
    return { ...message, tool_calls: calls.map(call) };
  });
  return { ...conversation, messages };
}

/** A message that has reasoning and no content yet goes on with its reasoning. */
const inReasoning = ({ content, reasoning_content = "" }: TemplateMessage) =>
  content === "" && reasoning_content !== "";

/**
 * The text up to the end of what the last message has. That end is found by a character put there, which nothing else has:
 * what a template trims or repeats leads nowhere else.
 */
export function unfinished(conversation: Conversation, render: (messages: TemplateMessage[]) => string): string {
  const last = conversation.messages.at(-1) as TemplateMessage;
  const used = JSON.stringify(conversation);
  let point = 0xf_0000;
  while (used.includes(String.fromCodePoint(point))) point++;
  const mark = String.fromCodePoint(point);
  const field = inReasoning(last) ? "reasoning_content" : "content";
  const marked = { ...last, [field]: (last[field] ?? "") + mark };
  const parts = render([...conversation.messages.slice(0, -1), marked]).split(mark);
  if (parts.length === 2) return parts[0] as string;
  throw new SdarError(
    "TEMPLATE_FAILED",
    `the chat template writes the last message ${parts.length - 1} times: continueFinalMessage cannot go on with it`,
  );
}

/** For a template that knows reasoning, and a text that it made of the conversation. */
export function reasoningStart({ messages, ending }: Conversation, text: string): ReasoningStart {
  const opened = /<think>\s*$/.test(text.slice(-64)) ? "open" : "possible";
  if (ending !== "unfinished") return opened;
  const last = messages.at(-1) as TemplateMessage;
  if (inReasoning(last) || last.content.lastIndexOf(open) > last.content.lastIndexOf(close)) return "open";
  return last.content.trim() === "" ? opened : "never";
}
