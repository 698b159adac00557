// Prompts with what their answers must be, from JSON lines.
import { readOptional } from "../checkpoint.js";
import { SdarError } from "../errors.js";
import type { GenerateRequest, Message } from "../types.js";
import { Pattern } from "./patterns.js";

const matches = ["exact", "pattern", "choice"] as const;
type Match = (typeof matches)[number];

export interface EvalItem {
  /** file and line */
  where: string;
  prompt?: string;
  messages?: Message[];
  answer: string;
  match: Match;
  choices?: string[];
  task?: string;
  /** Whether a text is right. Throws DATA_INVALID. */
  judge(text: string): boolean;
}

const maxBytes = 2 ** 28;

/** Throws FILE_NOT_FOUND, FILE_UNREADABLE, or DATA_INVALID, which names the line. */
export function readEvalItems(file: string, limit = Number.POSITIVE_INFINITY): EvalItem[] {
  const text = readOptional(file, maxBytes);
  if (text === undefined) throw new SdarError("FILE_NOT_FOUND", `no file ${file}`);
  const items: EvalItem[] = [];
  for (const [index, line] of text
    .replace(/^\ufeff/, "")
    .split("\n")
    .entries()) {
    if (items.length >= limit) break;
    if (line.trim() !== "") items.push(parseItem(line, `${file}:${index + 1}`));
  }
  if (items.length === 0) throw new SdarError("DATA_INVALID", `${file} holds no prompts`);
  return items;
}

function parseItem(line: string, where: string): EvalItem {
  const refuse = (what: string) => new SdarError("DATA_INVALID", `${where}: ${what}`);
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw refuse(`is no JSON: ${(cause as Error).message}`);
  }
  const { prompt, messages, answer, match = "exact", choices, task } = Object(value) as Record<string, unknown>;
  if ((prompt === undefined) === (messages === undefined)) throw refuse('give one of "prompt" and "messages"');
  if (prompt !== undefined && typeof prompt !== "string") throw refuse('"prompt" must be a string');
  if (messages !== undefined && !isMessages(messages)) throw refuse('"messages" must be a list of { role, content }');
  if (typeof answer !== "string") throw refuse('"answer" must be a string');
  if (!matches.includes(match as Match)) throw refuse(`"match" must be one of ${matches.join(", ")}`);
  if (task !== undefined && typeof task !== "string") throw refuse('"task" must be a string');
  if ((choices !== undefined) !== (match === "choice"))
    throw refuse('"choices" go with "match": "choice", and only then');
  if (choices !== undefined && !(isTexts(choices) && choices.includes(answer))) {
    throw refuse('"choices" must be a list of strings, the answer among them');
  }
  const pattern = match === "pattern" ? new Pattern(answer, where) : undefined;
  return {
    where,
    ...(prompt === undefined ? { messages: messages as Message[] } : { prompt: prompt as string }),
    answer,
    match: match as Match,
    ...(choices !== undefined && { choices: choices as string[] }),
    ...(task !== undefined && { task }),
    judge: (text) => (pattern ? pattern.test(text) : text.trim() === answer.trim()),
  };
}

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.length > 0 && value.every((one) => typeof one === "string");

const isMessages = (value: unknown): boolean =>
  Array.isArray(value) &&
  value.length > 0 &&
  value.every((one) => typeof Object(one).role === "string" && "content" in Object(one));

/** What the engine is asked. A prompt is a user's message where there is a template for it; of choices, one must come. */
export function requestOf({ prompt, messages, choices }: EvalItem, hasTemplate: boolean): GenerateRequest {
  const format = choices && { format: { type: "choice" as const, choices, probabilities: false } };
  if (messages) return { messages, ...format };
  if (!hasTemplate) return { prompt: prompt as string, ...format };
  return { messages: [{ role: "user", content: prompt as string }], ...format };
}
