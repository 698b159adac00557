// Tools that are not wrapped, as Anthropic's API and the Responses API have them, and the names of places in lists that were changed.
import type { RequestFields, ToolFunction } from "../types.js";
import { given } from "./openai-fields.js";
import { badField } from "./problem.js";

/** Entries of a list of the engine's, and the index that each had in the client's. */
export interface Placed<T> {
  list: T[];
  from: number[];
}

/** A tool of a client in the engine's terms; undefined for one that this server cannot have called. */
export type FlatTool = { [Name in keyof ToolFunction]?: ToolFunction[Name] | null | undefined } | undefined;

/** Tools and how they may be called; those that are undefined are passed over. Throws ApiError. */
export function flatTools(
  tools: readonly FlatTool[],
  choice: RequestFields["toolChoice"],
  parallel: boolean | undefined,
): { fields: Pick<RequestFields, "tools" | "toolChoice" | "parallelToolCalls">; from: number[] } {
  const placed: Placed<ToolFunction> = { list: [], from: [] };
  for (const [index, tool] of tools.entries()) {
    if (!tool) continue;
    const { name } = tool;
    if (typeof name !== "string") throw badField(`tools[${index}].name`, `tools[${index}].name: give a name`);
    placed.list.push({ ...given(tool), name });
    placed.from.push(index);
  }
  const { list, from } = placed;
  if (list.length === 0) {
    if (choice === undefined || choice === "auto" || choice === "none") return { fields: {}, from };
    throw badField("tool_choice", "tool_choice: there is no function among the tools");
  }
  return { fields: { tools: list, ...given({ toolChoice: choice, parallelToolCalls: parallel }) }, from };
}

/** `messages[4].content` as the place that it came from, such as `input[2]`; undefined where it is no place in that list. */
export function placeOf(option: string, name: string, from: readonly number[], field: string): string | undefined {
  const [, index, rest] = /^\w+\[(\d+)\](.*)$/s.exec(option.startsWith(`${name}[`) ? option : "") ?? [];
  const origin = from[Number(index)];
  if (origin === undefined) return undefined;
  // What is within a message has other names there.
  return origin < 0 ? field : `${field}[${origin}]${name === "tools" ? rest : ""}`;
}
