// What the tools of a request ask of its answer: which calls are taken out of the text, and the form that holds the text to them.
import { marks, type PartsSetup } from "./answer-parts.js";
import type { ToolUse } from "./conversation-schema.js";
import type { ReasoningStart } from "./text/conversation-text.js";

/**
 * A form of texts with calls in them. With CALL for `begin`, one object, `end`:
 *
 * - `choice` "auto": text and CALLs in any order; "none": text; "required": CALLs alone, at least one; `{ name }`: one CALL, of that
 *   tool. More than one CALL only where `parallel`, with `between` in between where nothing else is.
 * - text is any that does not have `mark`, which begins a CALL wherever it comes: what follows it is the rest of `begin`.
 * - the object is `{"name": NAME, "arguments": ARGUMENTS}`, spaces and all: the name of a tool as JSON, and JSON that its schema takes, as
 *   `{"type": "json_schema", "whitespace": "some"}` has it, so that it can be written as `json.dumps` does.
 * - before all that, where `reasoning` is not null: `open`, any text without `close`, `close`, any number of line ends. With `opened` the
 *   text begins after `open`, and must come to `close`; without, the whole of it is optional.
 */
export interface ToolForm {
  type: "tools";
  mark: string;
  begin: string;
  end: string;
  between: string;
  tools: { name: string; schema: object }[];
  choice: ToolUse["choice"];
  parallel: boolean;
  reasoning: { open: string; close: string; opened: boolean } | null;
}

/** `reasoning` is of the prompt that was rendered. */
export function toolForm({ tools, choice, parallel }: ToolUse, reasoning: ReasoningStart): ToolForm {
  const [mark, end] = marks.call;
  const [open, close] = marks.reasoning;
  return {
    type: "tools",
    mark,
    begin: `${mark}\n`,
    end: `\n${end}`,
    between: "\n",
    tools: tools.map(({ name, parameters }) => ({ name, schema: parameters ?? { type: "object" } })),
    choice,
    parallel,
    reasoning: reasoning === "never" ? null : { open, close, opened: reasoning === "open" },
  };
}

/** Undefined where what looks like a call is none. */
export function callsOf(use: ToolUse | undefined): PartsSetup["calls"] {
  if (!use || use.choice === "none") return undefined;
  return { names: new Set(use.tools.map(({ name }) => name)), parallel: use.parallel };
}
