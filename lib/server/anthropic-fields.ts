// Bodies of Anthropic's Messages API as requests of the engine.
import { z } from "zod";
import { bounds } from "../limits.js";
import type { Format, Message, MessageToolCall, RequestFields } from "../types.js";
import { flatTools, type Placed, placeOf } from "./flat-tools.js";
import { given, optional, paramOf, sdarSchema, sharedOptions } from "./openai-fields.js";
import { badField } from "./problem.js";

const string = z.string();
const number = optional(z.number());
const whole = z.int({ error: "give a whole number" });
const flag = optional(z.boolean());
const textBlock = z.object({ type: z.literal("text"), text: string });

/** Blocks of these types alone. */
const blocksOf = <Blocks extends [z.core.$ZodTypeDiscriminable, ...z.core.$ZodTypeDiscriminable[]]>(
  types: string,
  ...blocks: Blocks
) =>
  z.union(
    [string, z.array(z.discriminatedUnion("type", blocks, { error: `give ${types}: nothing else can be read` }))],
    {
      error: `give a string or a list of blocks of type ${types}`,
    },
  );

const textOnly = blocksOf("text", textBlock);
const content = blocksOf(
  "text, thinking, redacted_thinking, tool_use or tool_result",
  textBlock,
  z.object({ type: z.literal("thinking"), thinking: string }),
  z.object({ type: z.literal("redacted_thinking") }),
  z.object({
    type: z.literal("tool_use"),
    id: string,
    name: string,
    input: z.record(z.string(), z.unknown()),
  }),
  z.object({ type: z.literal("tool_result"), tool_use_id: string, content: optional(textOnly) }),
);

/** What is counted as well as what is answered. */
const promptFields = {
  model: optional(z.string({ error: "give the name of a model" })).describe("may be left out where there is one"),
  messages: z
    .array(z.object({ role: z.enum(["user", "assistant", "system"], { error: "give user or assistant" }), content }), {
      error: "give a list of messages",
    })
    .min(1, { error: "give at least one message" })
    .max(bounds.messages, { error: `give at most ${bounds.messages} messages` })
    .describe("one of the assistant at the end is gone on with"),
  system: optional(textOnly),
  tools: optional(
    z
      .array(
        z.object({
          type: optional(string),
          name: optional(string),
          description: optional(string),
          input_schema: optional(z.record(z.string(), z.unknown(), { error: "give a JSON Schema of an object" })),
          strict: flag,
        }),
        { error: "give a list of tools" },
      )
      .max(bounds.tools, { error: `give at most ${bounds.tools} tools` }),
  ).describe("those of another type than custom are passed over: this server calls nothing by itself"),
  tool_choice: optional(
    z.object({
      type: z.enum(["auto", "any", "tool", "none"], { error: "give auto, any, tool or none" }),
      name: optional(string),
      disable_parallel_tool_use: flag,
    }),
  ),
  thinking: optional(z.object({ type: string })).describe(
    'type "disabled" turns thinking off, others on, where the chat template can; default: as the template has it',
  ),
  output_config: optional(
    z.object({
      effort: optional(string),
      format: optional(
        z.object({
          type: z.literal("json_schema", { error: "give json_schema" }),
          schema: z.record(z.string(), z.unknown(), { error: "give a JSON Schema" }),
        }),
      ),
    }),
  ),
};

export const countSchema = z.object(promptFields);
export type CountBody = z.infer<typeof countSchema>;

export const messagesSchema = z.object({
  ...promptFields,
  max_tokens: whole,
  stream: flag,
  stop_sequences: optional(z.array(string, { error: "give a list of strings" }).max(64, { error: "give at most 64" })),
  temperature: number.describe("0, the default, takes the most probable token"),
  top_p: number,
  top_k: optional(whole),
  sdar: optional(sdarSchema),
});
export type MessagesBody = z.infer<typeof messagesSchema>;

/** What the prompt is made of. */
export type PromptFields = Pick<
  RequestFields,
  "tools" | "toolChoice" | "parallelToolCalls" | "templateOptions" | "continueFinalMessage"
> & { messages: Message[] };

/** Where the parts of a prompt stood in the client's body. */
export interface Origins {
  messages: number[];
  tools: number[];
}

/** Throws ApiError. */
export function promptOf(body: CountBody): { fields: PromptFields; origins: Origins } {
  const { list: messages, from } = messagesOf(body);
  const tools = (body.tools ?? []).map(({ type, name, description, input_schema: parameters, strict }) =>
    (type ?? "custom") === "custom" ? { name, description, parameters, strict } : undefined,
  );
  const used = flatTools(tools, choiceOf(body), body.tool_choice?.disable_parallel_tool_use ? false : undefined);
  const last = messages.at(-1);
  const fields = {
    messages,
    ...used.fields,
    ...given({
      templateOptions: templateOptionsOf(body),
      continueFinalMessage: (last?.role === "assistant" && !last.toolCalls) || undefined,
    }),
  };
  return { fields, origins: { messages: from, tools: used.from } };
}

/** All but the prompt. */
export function optionsOf(body: MessagesBody): Partial<RequestFields> {
  const { stream, temperature, top_p, top_k, sdar, max_tokens: maxTokens, stop_sequences: stop, output_config } = body;
  const asked = output_config?.format;
  const format: Format | undefined = asked ? { type: "json_schema", schema: asked.schema } : undefined;
  const shared = sharedOptions({ stream, temperature, top_p, top_k, sdar, stop });
  return { ...shared, ...given({ maxTokens, format }) };
}

/** The client's name of an option. */
export function fieldOf(option: string, { messages, tools }: Origins): string {
  const place = placeOf(option, "messages", messages, "messages") ?? placeOf(option, "tools", tools, "tools");
  return place?.replace(/^(tools\[\d+\])\.parameters/, "$1.input_schema") ?? paramOf(option, fields);
}

const fields = {
  prompt: "messages",
  stop: "stop_sequences",
  format: "output_config.format.schema",
  templateOptions: "thinking",
};

function templateOptionsOf({ thinking, output_config: config }: CountBody): Record<string, unknown> | undefined {
  // Names that one template or another knows; others pass over them.
  const options = {
    ...(thinking && { enable_thinking: thinking.type !== "disabled" }),
    ...(config?.effort && { reasoning_effort: config.effort }),
  };
  return Object.keys(options).length > 0 ? options : undefined;
}

function choiceOf({ tool_choice: choice }: CountBody): RequestFields["toolChoice"] {
  if (!choice) return undefined;
  if (choice.type === "any") return "required";
  if (choice.type !== "tool") return choice.type;
  if (choice.name === undefined || choice.name === null)
    throw badField("tool_choice.name", "tool_choice.name: give the name of a tool");
  return { name: choice.name };
}

type ClientMessage = CountBody["messages"][number];

function messagesOf({ system, messages }: CountBody): Placed<Message> {
  const made: Placed<Message> = { list: [], from: [] };
  const add = (message: Message, index: number) => {
    made.list.push(message);
    made.from.push(index);
  };
  const said = textOf(system);
  // Of the field beside them.
  if (said !== "") add({ role: "system", content: said }, -1);
  for (const [index, message] of messages.entries()) {
    if (message.role === "assistant") add(assistantOf(message, index), index);
    else for (const each of othersOf(message, index)) add(each, index);
  }
  return made;
}

const textOf = (given: string | readonly { text: string }[] | null | undefined): string =>
  typeof given === "string" ? given : (given ?? []).map(({ text }) => text).join("");

const misplaced = (index: number, at: number, type: string, role: string) =>
  badField(
    `messages[${index}].content[${at}].type`,
    `messages[${index}].content[${at}].type: ${type} is not allowed with role ${role}`,
  );

function assistantOf({ role, content }: ClientMessage, index: number): Message {
  if (typeof content === "string") return { role, content };
  const texts: string[] = [];
  const thoughts: string[] = [];
  const toolCalls: MessageToolCall[] = [];
  for (const [at, block] of content.entries()) {
    if (block.type === "text") texts.push(block.text);
    else if (block.type === "thinking") thoughts.push(block.thinking);
    else if (block.type === "tool_use")
      toolCalls.push({ id: block.id, name: block.name, arguments: JSON.stringify(block.input) });
    else if (block.type === "tool_result") throw misplaced(index, at, block.type, role);
  }
  const reasoning = thoughts.join("");
  return {
    role,
    content: texts.join(""),
    ...(reasoning !== "" && { reasoning }),
    ...(toolCalls.length > 0 && { toolCalls }),
  };
}

/** Results of tools are messages of their own. */
function othersOf({ role, content }: ClientMessage, index: number): Message[] {
  if (typeof content === "string") return [{ role, content }];
  const messages: Message[] = [];
  let texts: string[] = [];
  const flush = () => {
    if (texts.length > 0) messages.push({ role, content: texts.join("") });
    texts = [];
  };
  for (const [at, block] of content.entries()) {
    if (block.type === "text") texts.push(block.text);
    else if (block.type === "tool_result" && role === "user") {
      flush();
      messages.push({ role: "tool", content: textOf(block.content), toolCallId: block.tool_use_id });
    } else throw misplaced(index, at, block.type, role);
  }
  flush();
  return messages.length > 0 ? messages : [{ role, content: "" }];
}
