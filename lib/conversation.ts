// What a conversation is made of: messages, the tools that an answer may call, the calls. By type, and as chat templates have it.

/** A part of a message's text. */
export interface TextPart {
  type: "text";
  text: string;
}

/** A call in a message: as a result has it, or as OpenAI's API has it. `arguments` is JSON text, which is kept as it is, or an object. */
export type MessageToolCall =
  | { id?: string; type?: "function"; name: string; arguments: string | object; value?: unknown }
  | { id?: string; type?: "function"; function: { name: string; arguments: string | object } };

/** One message of a conversation, for the checkpoint's chat template. */
export interface Message {
  /** `"system"`, `"user"`, `"assistant"`, `"tool"` (a tool's result), or another role that the template knows */
  role: string;
  /** Text, or parts of it, with nothing between them. An assistant's message with `toolCalls` may have null. */
  content: string | readonly TextPart[] | null;
  /** of a participant, or of the tool, where the template knows names */
  name?: string;
  /** of role `"assistant"`: what it thought before it answered; templates may leave it out of earlier turns */
  reasoning?: string;
  /** of role `"assistant"`: what it called */
  toolCalls?: readonly MessageToolCall[];
  /** of role `"tool"`: which call it is the result of */
  toolCallId?: string;
}

/** A function that the model may call. */
export interface ToolFunction {
  /** letters, digits, `_`, `-` and `.`, at most 64 */
  name: string;
  description?: string;
  /**
   * JSON Schema of an object.
   *
   * @default any object
   */
  parameters?: object;
  /** Arguments always have the form of `parameters`: this, which OpenAI's clients send, changes nothing. */
  strict?: boolean | null;
}

/** A tool: a function, also as OpenAI's API wraps it. */
export type Tool = ToolFunction | { type: "function"; function: ToolFunction };

/** Whether calls may, must not or must come, or of which function one must; the last also as OpenAI's API has it. */
export type ToolChoice =
  | "auto"
  | "none"
  | "required"
  | { name: string }
  | { type: "function"; function: { name: string } };

/** A call of a tool by the model. */
export interface ToolCall {
  /** unique; a tool's result names it as `toolCallId` */
  id: string;
  name: string;
  /** JSON text of an object, as the model wrote it */
  arguments: string;
  /** the same, parsed */
  value: Record<string, unknown>;
}

/** Options that go with `messages`. */
export interface ConversationFields {
  /** Functions that the answer may call, at most 128. For chat templates whose calls are JSON in `<tool_call>`, as Qwen3's and SDAR's. */
  tools?: readonly Tool[];
  /**
   * `"auto"`: text, calls or both. `"none"`: no calls, though the template is given the tools. `"required"`: calls and no text;
   * `{ name }`: one call, of that function.
   *
   * @default "auto"
   */
  toolChoice?: ToolChoice;
  /**
   * Whether an answer may have several calls.
   *
   * @default true
   */
  parallelToolCalls?: boolean;
  /** Variables for the chat template, such as `{ enable_thinking: false }`: JSON values. */
  templateOptions?: Readonly<Record<string, unknown>>;
  /**
   * Goes on with the last message, which is the assistant's, instead of answering it; with its `reasoning` where it has no
   * `content` yet. The result has what is new.
   *
   * @default false
   */
  continueFinalMessage?: boolean;
}

export const conversationNames = [
  "tools",
  "toolChoice",
  "parallelToolCalls",
  "templateOptions",
  "continueFinalMessage",
] as const satisfies (keyof ConversationFields)[];

/** A message as chat templates have it. */
export interface TemplateMessage {
  role: string;
  content: string;
  name?: string;
  reasoning_content?: string;
  tool_calls?: { id?: string; type: "function"; function: { name: string; arguments: string | object } }[];
  tool_call_id?: string;
}

/** A tool as chat templates have it. */
export interface TemplateTool {
  type: "function";
  function: ToolFunction;
}

/** All that a chat template is given. Plain data: it crosses threads. */
export interface Conversation {
  messages: TemplateMessage[];
  tools?: TemplateTool[];
  options?: Readonly<Record<string, unknown>>;
  /** what its text ends with: the request for an answer, the last message as it is, or that message unfinished */
  ending: "answer" | "message" | "unfinished";
}

type Given = Pick<ConversationFields, "tools" | "templateOptions" | "continueFinalMessage"> & {
  addGenerationPrompt?: boolean | undefined;
};

/** Of options that were checked. */
export function conversationOf(messages: readonly Message[], given: Given = {}): Conversation {
  const { tools = [], templateOptions, continueFinalMessage = false, addGenerationPrompt = true } = given;
  return {
    messages: messages.map(templateMessage),
    ...(tools.length > 0 && { tools: tools.map(templateTool).map(plain) }),
    ...(templateOptions && { options: plain(templateOptions) }),
    ending: continueFinalMessage ? "unfinished" : addGenerationPrompt ? "answer" : "message",
  };
}

function templateMessage({ role, content, name, reasoning, toolCalls, toolCallId }: Message): TemplateMessage {
  return {
    role,
    content: textOf(content),
    ...(name !== undefined && { name }),
    ...(reasoning !== undefined && { reasoning_content: reasoning }),
    ...(toolCalls?.length && { tool_calls: toolCalls.map(templateCall) }),
    ...(toolCallId !== undefined && { tool_call_id: toolCallId }),
  };
}

export const textOf = (content: Message["content"] | undefined): string =>
  typeof content === "string" ? content : (content ?? []).map(({ text }) => text).join("");

function templateCall(call: MessageToolCall): NonNullable<TemplateMessage["tool_calls"]>[number] {
  const { name, arguments: given } = "function" in call ? call.function : call;
  return {
    ...(call.id !== undefined && { id: call.id }),
    type: "function",
    function: { name, arguments: plain(given) },
  };
}

/** Without properties that are undefined. */
const plain = <T>(value: T): T => JSON.parse(JSON.stringify(value));

export const functionOf = (tool: Tool): ToolFunction => ("function" in tool ? tool.function : tool);

const templateTool = (tool: Tool): TemplateTool => ("function" in tool ? tool : { type: "function", function: tool });
