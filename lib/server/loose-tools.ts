// Tools as agents send them: schemas written for servers that do not enforce them.

import { SdarError } from "../errors.js";
import type { GenerateRequest } from "../request.js";
import type { Tool, ToolFunction } from "../types.js";

/** Keywords that a request may lose; one that needs more is refused. */
export const mostDropped = 64;

/**
 * The request without the keyword that the engine refused in a tool's parameters, where the tool is not `strict`: OpenAI's API promises
 * nothing of the arguments then, and what can be enforced still is. Undefined where the error is about something else.
 */
export function withoutKeyword(request: GenerateRequest, error: unknown): GenerateRequest | undefined {
  if (!SdarError.is(error, "INVALID_OPTION") || !request.tools) return undefined;
  // A name may have anything in it but what JSON Pointer escapes.
  const [, index, pointer] = /^tools\[(\d+)\]\.parameters#(\/.*?)(?:: | is )/s.exec(error.message) ?? [];
  const tool = request.tools[Number(index)];
  if (pointer === undefined || !tool) return undefined;
  const described = functionOf(tool);
  if (described.strict || !described.parameters) return undefined;
  const path = pointer
    .slice(1)
    .split("/")
    .map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~"));
  const parameters = without(described.parameters, path);
  if (!parameters) return undefined;
  const loose: ToolFunction = { ...described, parameters };
  const tools = request.tools.map((each) => (each === tool ? loose : each));
  return { ...request, tools } as GenerateRequest;
}

const functionOf = (tool: Tool): ToolFunction => ("function" in tool ? tool.function : tool);

/** A copy without what a path leads to; undefined where it leads nowhere. */
function without(value: unknown, [name, ...rest]: string[]): object | undefined {
  if (typeof value !== "object" || value === null || name === undefined || !Object.hasOwn(value, name))
    return undefined;
  if (rest.length === 0 && Array.isArray(value)) return undefined;
  const entries = Object.entries(value);
  if (rest.length === 0) return Object.fromEntries(entries.filter(([key]) => key !== name));
  const inner = without((value as Record<string, unknown>)[name], rest);
  if (!inner) return undefined;
  const changed = entries.map(([key, each]) => [key, key === name ? inner : each] as const);
  return Array.isArray(value) ? changed.map(([, each]) => each) : Object.fromEntries(changed);
}
