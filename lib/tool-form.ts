// What a conversation's answer is made of: which calls are taken out of its text, and the form that holds the text to them.
import { marks, type PartsSetup } from "./answer-parts.js";
import type { ToolUse } from "./conversation-schema.js";
import type { ReasoningStart } from "./text/conversation-text.js";

/**
 * The form "answer" of native/form/form.h, as JSON; undefined where nothing is asked of the answer. `reasoning` is of the
 * prompt that was rendered, `format` what the text must be, as JSON.
 */
export function answerForm(use: ToolUse | undefined, reasoning: ReasoningStart, format?: string): string | undefined {
  if (!use && (reasoning === "never" || format === undefined)) return format;
  const [open, close] = marks.reasoning;
  const parts = {
    type: "answer",
    reasoning: reasoning === "never" ? null : { open, close, opened: reasoning === "open" },
    calls: use ? callsForm(use) : null,
  };
  return `${JSON.stringify(parts).slice(0, -1)},"format":${format ?? "null"}}`;
}

function callsForm({ tools, choice, parallel }: ToolUse) {
  const [mark, end] = marks.call;
  const only = typeof choice === "object" ? choice.name : undefined;
  const callable = only === undefined ? tools : tools.filter(({ name }) => name === only);
  return {
    mark,
    begin: `${mark}\n`,
    end: `\n${end}`,
    between: "\n",
    // A schema that says no type takes other values as well.
    tools: callable.map(({ name, parameters }) => ({ name, schema: { ...parameters, type: "object" } })),
    choice: only === undefined ? choice : "required",
    parallel: parallel && only === undefined,
  };
}

/** Undefined where what looks like a call is none. */
export function callsOf(use: ToolUse | undefined): PartsSetup["calls"] {
  if (!use || use.choice === "none") return undefined;
  return { names: new Set(use.tools.map(({ name }) => name)), parallel: use.parallel };
}
