// Bodies of OpenAI's Responses API as requests of the engine.
import { z } from "zod";
import { bounds } from "../limits.js";
import type { Format, Message, MessageToolCall, RequestFields } from "../types.js";
import { flatTools, type Placed, placeOf } from "./flat-tools.js";
import { given, optional, paramOf, sharedFields, sharedOptions, type Unsupported } from "./openai-fields.js";
import { badField } from "./problem.js";

const string = z.string();
const flag = optional(z.boolean());
const whole = optional(z.int({ error: "give a whole number" }));
const record = (error: string) => z.record(z.string(), z.unknown(), { error });

const textPart = z.object({
  type: z.enum(["input_text", "output_text", "text", "refusal"], {
    error: "give input_text or output_text: no other part can be read",
  }),
  text: optional(string),
  refusal: optional(string),
});
const content = z.union([string, z.array(textPart)], { error: "give a string or a list of parts of text" });

const types = "message, function_call, function_call_output or reasoning: no other item can be read";
const item = z.discriminatedUnion(
  "type",
  [
    z.object({
      type: z.literal("message").optional(),
      role: z.enum(["user", "assistant", "system", "developer"], {
        error: "give user, assistant, system or developer",
      }),
      content,
    }),
    z.object({ type: z.literal("function_call"), call_id: string, name: string, arguments: string }),
    z.object({ type: z.literal("function_call_output"), call_id: string, output: content }),
    // What was thought before an earlier answer is left out of prompts.
    z.object({ type: z.literal("reasoning") }),
    z.object({ type: z.literal("item_reference"), id: string }),
  ],
  { error: `give ${types}` },
);

const tool = z.object({
  type: string,
  name: optional(string),
  description: optional(string),
  parameters: optional(record("give a JSON Schema of an object")),
  strict: flag,
});
const named = z.object({ type: string, name: optional(string) });
const toolChoice = z.union(
  [
    z.enum(["auto", "none", "required"]),
    named.extend({ mode: optional(z.enum(["auto", "required"])), tools: optional(z.array(named)) }),
  ],
  { error: "give auto, none, required, a function or allowed_tools" },
);

const { n, stream_options, ...shared } = sharedFields;

export const responsesSchema = z.object({
  input: z
    .union([string, z.array(item).max(bounds.messages, { error: `give at most ${bounds.messages} items` })], {
      error: "give a string or a list of items",
    })
    .describe("items of type reasoning are passed over"),
  instructions: optional(string),
  ...shared,
  max_output_tokens: whole,
  text: optional(
    z.object({
      format: optional(
        z.union(
          [
            z.object({ type: z.enum(["text", "json_object"]) }),
            z.object({
              type: z.literal("json_schema"),
              name: optional(string),
              schema: record("give a JSON Schema"),
              strict: flag,
            }),
          ],
          { error: "give text, json_object, or json_schema with a schema" },
        ),
      ),
    }),
  ),
  tools: optional(
    z.array(tool, { error: "give a list of tools" }).max(bounds.tools, { error: `give at most ${bounds.tools} tools` }),
  ).describe("those of another type than function are passed over: this server calls nothing by itself"),
  tool_choice: optional(toolChoice),
  parallel_tool_calls: flag,
  reasoning: optional(z.object({ effort: optional(string), summary: optional(string) })).describe(
    "effort none turns thinking off where the chat template can; with summary, what was thought comes as one",
  ),
  include: optional(z.array(string, { error: "give a list of strings" })).describe(
    "message.output_text.logprobs gives log-probabilities",
  ),
  top_logprobs: whole,
});
export type ResponsesBody = z.infer<typeof responsesSchema>;

/** What would be another answer; all that is stored elsewhere among it. */
export const unsupported: Unsupported = {
  previous_response_id: [],
  conversation: [],
  prompt: [],
  background: [false],
  n: [1],
};

/** Where messages and tools stood in the client's body. */
export interface Origins {
  input: number[];
  tools: number[];
}

export const wantsLogprobs = ({ include }: ResponsesBody): boolean =>
  include?.includes("message.output_text.logprobs") ?? false;

/** Throws ApiError. */
export function requestOf(body: ResponsesBody): { request: Partial<RequestFields>; origins: Origins } {
  const { max_output_tokens: maxTokens, text, top_logprobs: topLogprobs, reasoning } = body;
  const messages = messagesOf(body);
  if (messages.list.length === 0) throw badField("input", "input: give at least one item that says something");
  const { choice, tools } = toolsOf(body);
  const used = flatTools(tools, choice, body.parallel_tool_calls ?? undefined);
  const effort = reasoning?.effort;
  const request = {
    ...sharedOptions({ ...body, n: undefined }),
    messages: messages.list,
    ...used.fields,
    ...given({
      maxTokens,
      // Names that one template or another knows; others pass over them.
      templateOptions: effort ? { reasoning_effort: effort, enable_thinking: effort !== "none" } : undefined,
      format: formatOf(text?.format),
      topLogprobs: wantsLogprobs(body) ? topLogprobs : undefined,
    }),
  };
  return { request, origins: { input: messages.from, tools: used.from } };
}

/** The client's name of an option. */
export function fieldOf(option: string, { input, tools }: Origins): string {
  const place = placeOf(option, "messages", input, "input") ?? placeOf(option, "tools", tools, "tools");
  return place ?? paramOf(option, fields);
}

const fields = {
  maxTokens: "max_output_tokens",
  prompt: "input",
  messages: "input",
  format: "text.format.schema",
  templateOptions: "reasoning",
};

type TextFormat = NonNullable<NonNullable<ResponsesBody["text"]>["format"]>;

function formatOf(asked: TextFormat | null | undefined): Format | undefined {
  if (asked?.type === "json_object") return { type: "json" };
  return asked?.type === "json_schema" ? { type: "json_schema", schema: asked.schema } : undefined;
}

function toolsOf({ tools: all, tool_choice: chosen }: ResponsesBody) {
  let choice: RequestFields["toolChoice"];
  let allowed: ReadonlySet<string> | undefined;
  if (typeof chosen === "string") choice = chosen;
  else if (chosen?.type === "allowed_tools") {
    choice = chosen.mode ?? "auto";
    const functions = (chosen.tools ?? []).filter(({ type }) => type === "function");
    allowed = new Set(functions.map(({ name }) => name ?? ""));
  } else if (chosen) {
    if (chosen.type !== "function" || typeof chosen.name !== "string")
      throw badField("tool_choice", "tool_choice: of tools, only functions can be chosen; give one with its name");
    choice = { name: chosen.name };
  }
  const tools = (all ?? []).map(({ type, ...described }) =>
    type === "function" && (allowed?.has(described.name ?? "") ?? true) ? described : undefined,
  );
  return { choice, tools };
}

function messagesOf({ instructions, input }: ResponsesBody): Placed<Message> {
  const made: Placed<Message> = { list: [], from: [] };
  const add = (message: Message, index: number) => {
    made.list.push(message);
    made.from.push(index);
  };
  const items = typeof input === "string" ? [{ role: "user" as const, content: input }] : input;
  for (const [index, each] of items.entries()) {
    if (each.type === "function_call") {
      const call = { id: each.call_id, name: each.name, arguments: each.arguments === "" ? "{}" : each.arguments };
      addCall(made, call, index);
    } else if (each.type === "function_call_output") {
      add({ role: "tool", content: textOf(each.output), toolCallId: each.call_id }, index);
    } else if (each.type === "item_reference") {
      if (!each.id.startsWith("rs_")) throw reference(index);
    } else if (each.type !== "reasoning") {
      const role = each.role === "developer" ? "system" : each.role;
      add({ role, content: textOf(each.content) }, index);
    }
  }
  if (made.list.length > 0 && instructions) {
    made.list.unshift({ role: "system", content: instructions });
    // Of the field beside them.
    made.from.unshift(-1);
  }
  return made;
}

/** What was said and called in one turn is one message to the engine. */
function addCall({ list, from }: Placed<Message>, call: MessageToolCall, index: number): void {
  const last = list.at(-1);
  if (last?.role === "assistant") {
    list[list.length - 1] = { ...last, toolCalls: [...(last.toolCalls ?? []), call] };
  } else {
    list.push({ role: "assistant", content: null, toolCalls: [call] });
    from.push(index);
  }
}

const reference = (index: number) =>
  badField(
    `input[${index}].type`,
    `input[${index}].type: no items are stored here that could be referred to; give them whole, as with store: false`,
  );

const textOf = (given: z.infer<typeof content>): string =>
  typeof given === "string" ? given : given.map(({ text, refusal }) => text ?? refusal ?? "").join("");
