// An answer's text, as it comes, taken apart: reasoning at its beginning, calls of tools, and the text around them.
import { randomUUID } from "node:crypto";
import type { ToolCall } from "./conversation.js";
import { ObjectScanner } from "./object-scanner.js";
import type { ReasoningStart } from "./text/conversation-text.js";

/** How answers mark what is no text. */
export const marks = {
  reasoning: ["<think>", "</think>"],
  call: ["<tool_call>", "</tool_call>"],
} as const;

export interface PartsSetup {
  reasoning: ReasoningStart;
  /** names of tools that may be called, and whether more than once; undefined: calls are text */
  calls?: { names: ReadonlySet<string>; parallel: boolean } | undefined;
}

export interface Parts {
  text: string;
  reasoning?: string;
  toolCalls?: ToolCall[];
}

/** White space that waits for what comes after it: more of it is text. */
const maxGap = 64;

/**
 * Text that may turn out to be part of a mark, or the line end before one, is held back while it may; a call until it is whole.
 * Takes time linear in the text.
 */
export class AnswerParts {
  readonly #calls: PartsSetup["calls"];
  /** before the text, in reasoning, in text, in a call's object, after that object */
  #state: "start" | "reasoning" | "text" | "object" | "end";
  /** not looked at yet, or held back */
  #rest = "";
  /** in reasoning: nothing has come of it; after it, before text: line ends are dropped */
  #fresh = true;
  /** in text: right after a call, where white space may be between two */
  #between = false;
  #callCount = 0;
  /** a call's text with the white space before its mark, should it be none */
  #raw = "";
  #object = new ObjectScanner();
  #parts: Parts = { text: "" };

  constructor({ reasoning, calls }: PartsSetup) {
    this.#calls = calls;
    this.#state = reasoning === "open" ? "reasoning" : reasoning === "possible" ? "start" : "text";
    if (this.#state === "start") this.#fresh = false;
  }

  /** What is certain with this much more text; with `last`, all of it. */
  take(text: string, last = false): Parts {
    this.#parts = { text: "" };
    this.#rest += text;
    // Each goes on to the next state, or keeps what it must wait with.
    while (this.#step(last)) {}
    return this.#parts;
  }

  #step(last: boolean): boolean {
    switch (this.#state) {
      case "start":
        return this.#start(last);
      case "reasoning":
        return this.#reason(last);
      case "text":
        return this.#write(last);
      case "object":
        return this.#readObject(last);
      case "end":
        return this.#readEnd(last);
    }
  }

  #start(last: boolean): boolean {
    const [open] = marks.reasoning;
    if (this.#fresh) this.#rest = this.#rest.replace(/^\n+/, "");
    const word = this.#rest.trimStart();
    const short = this.#rest.length - word.length <= maxGap;
    if (short && word.startsWith(open)) {
      this.#rest = word.slice(open.length);
      this.#fresh = true;
      this.#state = "reasoning";
      return true;
    }
    if (!last && short && open.startsWith(word)) return false;
    this.#state = "text";
    return true;
  }

  #reason(last: boolean): boolean {
    if (this.#fresh) this.#rest = this.#rest.replace(/^\n+/, "");
    const [, close] = marks.reasoning;
    const at = this.#rest.indexOf(close);
    const end = at >= 0 ? at : last ? this.#rest.length : this.#rest.length - heldFor(close, this.#rest);
    let lines = end;
    while (this.#rest[lines - 1] === "\n" && end - lines < maxGap) lines--;
    if (lines > 0) {
      this.#parts.reasoning = (this.#parts.reasoning ?? "") + this.#rest.slice(0, lines);
      this.#fresh = false;
    }
    this.#rest = at >= 0 ? this.#rest.slice(at + close.length) : last ? "" : this.#rest.slice(lines);
    if (at < 0) return false;
    this.#fresh = true;
    this.#state = "start";
    return true;
  }

  #write(last: boolean): boolean {
    const [open] = marks.call;
    const mayCall = this.#calls !== undefined && (this.#calls.parallel || this.#callCount === 0);
    if (this.#between) {
      const word = this.#rest.trimStart();
      const gap = this.#rest.length - word.length;
      const short = gap <= maxGap;
      if (mayCall && short && word.startsWith(open)) return this.#begin(gap);
      if (short && (word === "" || (mayCall && !last && open.startsWith(word)))) {
        if (last) this.#rest = "";
        return false;
      }
    }
    const at = mayCall ? this.#rest.indexOf(open) : -1;
    const held = mayCall && at < 0 && !last ? heldFor(open, this.#rest) : 0;
    const end = at >= 0 ? at : this.#rest.length - held;
    // The line end before a mark belongs to it.
    const line = mayCall && this.#rest[end - 1] === "\n" && (at >= 0 || !last) ? 1 : 0;
    this.#give(end - line);
    return at >= 0 && this.#begin(line);
  }

  /** So much is text. */
  #give(length: number): void {
    if (length <= 0) return;
    this.#parts.text += this.#rest.slice(0, length);
    this.#rest = this.#rest.slice(length);
    this.#between = false;
  }

  /** A mark stands so far behind, where a call may begin. */
  #begin(at: number): true {
    const end = at + marks.call[0].length;
    this.#raw = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(end);
    this.#object = new ObjectScanner();
    this.#state = "object";
    return true;
  }

  #readObject(last: boolean): boolean {
    for (let i = 0; i < this.#rest.length; i++) {
      const found = this.#object.take(this.#rest[i] as string);
      if (found === "more") continue;
      // The character that is wrong may begin a mark.
      this.#skip(found === "whole" ? i + 1 : i);
      if (found === "wrong") return this.#noCall();
      this.#state = "end";
      return true;
    }
    this.#skip(this.#rest.length);
    return last && this.#noCall();
  }

  #readEnd(last: boolean): boolean {
    const [, close] = marks.call;
    const word = this.#rest.trimStart();
    const gap = this.#rest.length - word.length;
    const short = gap <= maxGap;
    const whole = short && word.startsWith(close);
    if (!last && short && !whole && close.startsWith(word)) return false;
    // A text that ends within the mark has the whole call.
    const call = whole || (last && short && close.startsWith(word)) ? this.#callOf() : undefined;
    this.#skip(gap + (whole ? close.length : call ? word.length : 0));
    if (!call) return this.#noCall();
    this.#parts.toolCalls = [...(this.#parts.toolCalls ?? []), call];
    this.#callCount++;
    this.#between = true;
    this.#state = "text";
    return true;
  }

  #skip(length: number): void {
    this.#raw += this.#rest.slice(0, length);
    this.#rest = this.#rest.slice(length);
  }

  /** What was taken for a call stays text. */
  #noCall(): true {
    this.#parts.text += this.#raw;
    this.#between = false;
    this.#state = "text";
    return true;
  }

  #callOf(): ToolCall | undefined {
    const { members } = this.#object;
    const name = JSON.parse(members.get("name") ?? "null");
    const given = members.get("arguments") ?? "{}";
    if (!this.#calls?.names.has(name) || !given.startsWith("{")) return undefined;
    const value = frozen(JSON.parse(given) as Record<string, unknown>);
    return Object.freeze({ id: `call_${randomUUID().replaceAll("-", "")}`, name, arguments: given, value });
  }
}

/** How much of a text's end may be the beginning of a mark. */
function heldFor(mark: string, text: string): number {
  let length = Math.min(mark.length - 1, text.length);
  while (!text.endsWith(mark.slice(0, length))) length--;
  return length;
}

/** Not deep: see ObjectScanner. */
function frozen<T extends object>(value: T): T {
  for (const inner of Object.values(value)) if (typeof inner === "object" && inner !== null) frozen(inner);
  return Object.freeze(value);
}
