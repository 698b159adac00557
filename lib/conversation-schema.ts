// The one place where messages, tools and what goes with them are judged.
import { z } from "zod";
import {
  type Conversation,
  type ConversationFields,
  conversationNames,
  conversationOf,
  functionOf,
  type Message,
  type MessageToolCall,
  type TextPart,
  type Tool,
  type ToolChoice,
  type ToolFunction,
} from "./conversation.js";
import { invalidOption } from "./errors.js";
import { bounds } from "./limits.js";
import { boolean, strictObject, text } from "./schema.js";

type Path = PropertyKey[];

/**
 * The value as it is, its properties in their order, where the schema that `pick` chooses for it takes it; one that is there
 * already, since making a schema takes longer than a message.
 */
const as = <T>(pick: (value: unknown) => z.ZodType) =>
  z.custom<T>().superRefine((value, context) => {
    for (const issue of pick(value).safeParse(value).error?.issues ?? []) context.addIssue(issue as never);
  });

/** Where a value is none of JSON, or a list is longer than may be. */
function faultIn(value: unknown, path: Path): { path: Path; message: string } | undefined {
  if (typeof value === "number" && Number.isFinite(value)) return undefined;
  if (value === null || typeof value === "string" || typeof value === "boolean") return undefined;
  if (typeof value !== "object") return { path, message: "a value of JSON" };
  if (Array.isArray(value) && value.length > bounds.messages)
    return { path, message: `a list of at most ${bounds.messages} values` };
  for (const [name, inner] of Object.entries(value)) {
    // As in JSON.stringify, a property that is undefined is none.
    if (inner === undefined && !Array.isArray(value)) continue;
    const fault = faultIn(inner, [...path, Array.isArray(value) ? Number(name) : name]);
    if (fault) return fault;
  }
  return undefined;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const jsonObject = <T extends object>(allowed: string) =>
  z.custom<T>(isObject, { error: allowed }).superRefine((value, context) => {
    const fault = isObject(value) && faultIn(value, []);
    if (fault) context.addIssue({ code: "custom", ...fault });
  });

const name = z
  .string({ error: "a name" })
  .regex(/^[\w.-]{1,64}$/, { error: "a name of at most 64 letters, digits, _, - and ." });
const functionType = z.literal("function", { error: '"function"' });

const allowedContent = "a string, or a list of text parts";
const parts = z
  .array(
    strictObject({
      type: z.literal("text", { error: '"text": no other part of a message can be read' }),
      text: z.string({ error: "a string" }),
    } satisfies Record<keyof TextPart, z.ZodType>),
    { error: allowedContent },
  )
  .max(bounds.messages, { error: `at most ${bounds.messages} parts` });
const string = z.string({ error: allowedContent });
const stringOrNone = string.nullish();

const callArguments = jsonObject("JSON text of an object, or an object");
const callFields = {
  name,
  arguments: as<string | object>((value) => (typeof value === "string" ? string : callArguments)),
};
const callId = text(bounds.callId).min(1, { error: "an id that is not empty" });
const call = strictObject({
  id: callId.optional(),
  type: functionType.optional(),
  ...callFields,
  value: z.unknown().optional(),
});
const wrappedCall = strictObject({
  id: callId.optional(),
  type: functionType.optional(),
  function: strictObject(callFields),
});
const toolCalls = z
  .array(
    as<MessageToolCall>((value) => (isObject(value) && "function" in value ? wrappedCall : call)),
    { error: "a list of calls" },
  )
  .max(bounds.tools, { error: `at most ${bounds.tools} calls` });

const message = strictObject({
  role: text(bounds.role).min(1, { error: "a role such as user" }),
  content: as<Message["content"]>((value) => (Array.isArray(value) ? parts : stringOrNone)).optional(),
  name: text(bounds.role).min(1, { error: "a name that is not empty" }).optional(),
  reasoning: z.string({ error: "a string" }).optional(),
  toolCalls: toolCalls.optional(),
  toolCallId: callId.optional(),
} satisfies Record<keyof Message, z.ZodType>).superRefine((given, context) => {
  const refuse = (path: keyof Message, message: string) => context.addIssue({ code: "custom", path: [path], message });
  const { role, content, reasoning, toolCalls: calls, toolCallId } = given;
  if ((content === null || content === undefined) && !calls?.length) refuse("content", allowedContent);
  if (reasoning !== undefined && role !== "assistant") refuse("reasoning", "it with role assistant");
  if (calls && role !== "assistant") refuse("toolCalls", "them with role assistant");
  if (toolCallId !== undefined && role !== "tool") refuse("toolCallId", "it with role tool");
});

/** Messages, also none. */
export const messageList = z
  .array(message as unknown as z.ZodType<Message>, { error: "a list of messages" })
  .max(bounds.messages, { error: `at most ${bounds.messages} messages` });
export const messagesSchema = messageList.min(1, { error: "at least one message" });

const toolFunction = strictObject({
  name,
  description: z.string({ error: "a string" }).optional(),
  parameters: jsonObject<object>("a JSON Schema of an object")
    .refine((schema) => !isObject(schema) || schema.type === undefined || schema.type === "object", {
      path: ["type"],
      error: '"object": arguments are one',
    })
    .optional(),
  strict: boolean.nullish(),
} satisfies Record<keyof ToolFunction, z.ZodType>);
const wrappedFunction = strictObject({ type: functionType, function: toolFunction });
const tools = z
  .array(
    as<Tool>((value) => (isObject(value) && ("function" in value || "type" in value) ? wrappedFunction : toolFunction)),
    { error: "a list of tools" },
  )
  .max(bounds.tools, { error: `at most ${bounds.tools} tools` })
  .superRefine((list, context) => {
    const seen = new Set<unknown>();
    for (const [index, tool] of list.entries()) {
      // What is no tool has been refused already.
      const wrapped = "function" in Object(tool);
      const named = (wrapped ? (tool as { function: unknown }).function : tool) as ToolFunction | null | undefined;
      const path = wrapped ? [index, "function", "name"] : [index, "name"];
      if (seen.has(named?.name)) context.addIssue({ code: "custom", path, message: "another name for each tool" });
      seen.add(named?.name);
    }
  });

const toolChoice = as<ToolChoice>((value) =>
  !isObject(value)
    ? z.enum(["auto", "none", "required"], { error: "one of auto, none, required, or { name } of a tool" })
    : "function" in value
      ? strictObject({ type: functionType, function: strictObject({ name }) })
      : strictObject({ name }),
);

/** Names that a chat template is given by other options. */
const taken = ["messages", "tools", "add_generation_prompt", "continue_final_message"];
const templateOptions = jsonObject<Readonly<Record<string, unknown>>>("an object").superRefine((value, context) => {
  const own = isObject(value) ? taken.find((name) => name in value) : undefined;
  if (own !== undefined)
    context.addIssue({ code: "custom", path: [own], message: `other names than ${taken.join(", ")}` });
});

/** As members of a schema whose properties are all optional. */
export const conversationSchemas = {
  tools,
  toolChoice,
  parallelToolCalls: boolean,
  templateOptions,
  continueFinalMessage: boolean,
} satisfies Record<keyof ConversationFields, z.ZodType>;

/** What may be called, and how; of options that were checked. */
export interface ToolUse {
  tools: readonly ToolFunction[];
  choice: "auto" | "none" | "required" | { name: string };
  parallel: boolean;
}

const messagesOnly = [...conversationNames, "addGenerationPrompt"] as const;

/** Refuses what goes with `messages` only, where there are none. */
export function refuseWithoutMessages(given: { [Name in (typeof messagesOnly)[number]]?: unknown }): void {
  const name = messagesOnly.find((each) => given[each] !== undefined);
  if (name !== undefined) throw invalidOption(name, given[name], "it with messages");
}

/** Throws INVALID_OPTION for what does not go together. */
export function parseConversation(
  messages: readonly Message[],
  given: ConversationFields & { addGenerationPrompt?: boolean | undefined },
): Conversation {
  if (given.continueFinalMessage) {
    if (given.addGenerationPrompt)
      throw invalidOption("addGenerationPrompt", true, "either it or continueFinalMessage");
    const last = messages.at(-1);
    if (last?.role !== "assistant" || last.toolCalls?.length)
      throw invalidOption(
        "continueFinalMessage",
        true,
        "it where the last message is the assistant's, without toolCalls",
      );
  }
  return conversationOf(messages, given);
}

/** Undefined without tools. Throws INVALID_OPTION for a choice that cannot be. */
export function parseTools({
  tools: given = [],
  toolChoice,
  parallelToolCalls,
}: ConversationFields): ToolUse | undefined {
  const choice = typeof toolChoice === "object" && "function" in toolChoice ? toolChoice.function : toolChoice;
  const functions = given.map(functionOf);
  if (choice !== undefined && choice !== "none" && choice !== "auto") {
    if (functions.length === 0) throw invalidOption("toolChoice", toolChoice, "it with tools");
    if (typeof choice === "object" && !functions.some(({ name }) => name === choice.name))
      throw invalidOption("toolChoice.name", choice.name, `one of ${functions.map(({ name }) => name).join(", ")}`);
  }
  if (functions.length === 0) return undefined;
  return { tools: functions, choice: choice ?? "auto", parallel: parallelToolCalls ?? true };
}
