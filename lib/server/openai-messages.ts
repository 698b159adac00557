// Messages and tools of chat completions, as the engine has them.
import { z } from "zod";
import { bounds } from "../limits.js";
import type { Message, MessageToolCall, RequestFields, Tool, ToolFunction } from "../types.js";
import { optional } from "./openai-fields.js";
import { badField } from "./problem.js";

const part = z
  .object({
    type: z.enum(["text", "refusal"], { error: 'give "text": no other part of a message can be read' }),
    text: optional(z.string()),
    refusal: optional(z.string()),
  })
  .refine(({ text, refusal }) => typeof (text ?? refusal) === "string", { path: ["text"], error: "give a string" });
const content = z.union([z.string(), z.array(part)], { error: "give a string or a list of parts of type text" });

const toolCall = z.object({
  id: optional(z.string()),
  function: z.object({ name: z.string(), arguments: z.union([z.string(), z.record(z.string(), z.unknown())]) }),
});

export const messagesField = z
  .array(
    z.object({
      role: z.string({ error: "give a role such as user" }),
      content: optional(content),
      name: optional(z.string()),
      reasoning_content: optional(z.string()),
      reasoning: optional(z.string()),
      tool_calls: optional(z.array(toolCall)),
      tool_call_id: optional(z.string()),
    }),
    { error: "give a list of messages" },
  )
  .min(1, { error: "give at least one message" })
  .max(bounds.messages, { error: `give at most ${bounds.messages} messages` });

type ClientMessage = z.infer<typeof messagesField>[number];

export function messagesOf(messages: readonly ClientMessage[]): Message[] {
  return messages.map((message, index) => {
    const { role: given, content, name, reasoning_content, reasoning, tool_calls, tool_call_id } = message;
    if (given === "function") throw badField(`messages[${index}].role`, "role function is not supported: use tool");
    // What OpenAI's API calls the system's messages to reasoning models.
    const role = given === "developer" ? "system" : given;
    const thought = reasoning_content ?? reasoning;
    return {
      role,
      content: textOf(content),
      ...(name && { name }),
      ...(role === "assistant" && thought && { reasoning: thought }),
      ...(role === "assistant" && tool_calls?.length && { toolCalls: tool_calls.map(callOf) }),
      ...(role === "tool" && tool_call_id && { toolCallId: tool_call_id }),
    };
  });
}

function textOf(content: ClientMessage["content"]): string {
  if (typeof content === "string") return content;
  return (content ?? []).map(({ text, refusal }) => text ?? refusal ?? "").join("");
}

function callOf({ id, function: { name, arguments: args } }: z.infer<typeof toolCall>): MessageToolCall {
  // No text is what some clients send for no arguments.
  return { ...(id && { id }), name, arguments: args === "" ? "{}" : args };
}

export const toolFields = {
  tools: optional(
    z
      .array(
        z.object({
          type: z.string({ error: 'give "function"' }),
          function: optional(
            z.object({
              name: z.string({ error: "give a name" }),
              description: optional(z.string()),
              parameters: optional(z.record(z.string(), z.unknown(), { error: "give a JSON Schema of an object" })),
              strict: optional(z.boolean()),
            }),
          ),
        }),
        { error: "give a list of tools" },
      )
      .max(bounds.tools, { error: `give at most ${bounds.tools} tools` }),
  ).describe("those of another type than function are passed over: this server calls nothing by itself"),
  tool_choice: optional(
    z.union(
      [
        z.enum(["auto", "none", "required"]),
        z.object({ type: z.literal("function"), function: z.object({ name: z.string() }) }),
      ],
      { error: "give auto, none, required, or a function" },
    ),
  ),
  parallel_tool_calls: optional(z.boolean()),
};
const toolSchema = z.object(toolFields);
type ToolFields = z.infer<typeof toolSchema>;

/** Tools and how they may be called; nothing where there are none. Throws ApiError. */
export function toolsOf({
  tools: given,
  tool_choice: choice,
  parallel_tool_calls: parallel,
}: ToolFields): Pick<RequestFields, "tools" | "toolChoice" | "parallelToolCalls"> {
  const tools = (given ?? []).flatMap(({ type, function: described }, index): Tool[] => {
    if (type !== "function") return [];
    if (!described) throw badField(`tools[${index}].function`, `tools[${index}].function: give a function`);
    return [{ type, function: toolOf(described) }];
  });
  if (tools.length === 0) {
    if (choice === undefined || choice === null || choice === "auto" || choice === "none") return {};
    throw badField("tool_choice", "tool_choice: there is no function among the tools");
  }
  return {
    tools,
    ...(choice && { toolChoice: choice }),
    ...(typeof parallel === "boolean" && { parallelToolCalls: parallel }),
  };
}

type Described = NonNullable<NonNullable<ToolFields["tools"]>[number]["function"]>;

function toolOf({ name, description, parameters, strict }: Described): ToolFunction {
  return {
    name,
    ...(typeof description === "string" && { description }),
    ...(parameters && { parameters }),
    ...(typeof strict === "boolean" && { strict }),
  };
}
