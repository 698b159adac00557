// Items of a response's output, and the events that tell of them as they come.
import { randomUUID } from "node:crypto";
import type { ToolCall } from "../types.js";

type Status = "in_progress" | "completed" | "incomplete";

/** What is told of an item, without `sequence_number`. */
export interface ItemEvent {
  type: string;
  [field: string]: unknown;
}

/** An item with text, which grows. */
interface Open {
  kind: "reasoning" | "message";
  id: string;
  text: string;
  logprobs: object[];
}

const newId = (prefix: string) => `${prefix}_${randomUUID().replaceAll("-", "")}`;

/** Items in the order in which their parts come: what a client that reads events puts together is what one that does not is given. */
export class OutputItems {
  /** whether what was thought comes as a summary, which more clients show */
  readonly #summary: boolean;
  readonly #done: object[] = [];
  #open: Open | undefined;

  constructor(summary: boolean) {
    this.#summary = summary;
  }

  /** All of them, once they are closed. */
  get items(): object[] {
    return this.#done;
  }

  reasoning(delta: string): ItemEvent[] {
    const events = this.#turnTo("reasoning");
    const open = this.#open as Open;
    open.text += delta;
    return [...events, { type: `${this.#names(open).text}.delta`, ...this.#place(open), delta }];
  }

  text(delta: string, logprobs: object[]): ItemEvent[] {
    const events = this.#turnTo("message");
    const open = this.#open as Open;
    open.text += delta;
    open.logprobs.push(...logprobs);
    return [...events, { type: "response.output_text.delta", ...this.#place(open), delta, logprobs }];
  }

  call({ id: call_id, name, arguments: args }: ToolCall): ItemEvent[] {
    const closed = this.close("completed");
    const id = newId("fc");
    const output_index = this.#done.length;
    const item = (status: Status, given: string) => ({
      id,
      type: "function_call",
      status,
      call_id,
      name,
      arguments: given,
    });
    this.#done.push(item("completed", args));
    const place = { item_id: id, output_index };
    return [
      ...closed,
      { type: "response.output_item.added", output_index, item: item("in_progress", "") },
      { type: "response.function_call_arguments.delta", ...place, delta: args },
      { type: "response.function_call_arguments.done", ...place, name, arguments: args },
      { type: "response.output_item.done", output_index, item: item("completed", args) },
    ];
  }

  /** Nothing more comes of the item that is open, if one is. */
  close(status: Exclude<Status, "in_progress">): ItemEvent[] {
    const open = this.#open;
    if (!open) return [];
    const names = this.#names(open);
    const place = this.#place(open);
    const part = this.#part(open);
    const { output_index } = place;
    const item = this.#item(open, status, [part]);
    this.#open = undefined;
    this.#done.push(item);
    const { text, logprobs } = open;
    return [
      { type: `${names.text}.done`, ...place, text, ...(open.kind === "message" && { logprobs }) },
      { type: `${names.part}.done`, ...place, part },
      { type: "response.output_item.done", output_index, item },
    ];
  }

  #turnTo(kind: Open["kind"]): ItemEvent[] {
    if (this.#open?.kind === kind) return [];
    const events = this.close("completed");
    const open: Open = { kind, id: newId(kind === "message" ? "msg" : "rs"), text: "", logprobs: [] };
    this.#open = open;
    const place = this.#place(open);
    const { output_index } = place;
    return [
      ...events,
      { type: "response.output_item.added", output_index, item: this.#item(open, "in_progress", []) },
      { type: `${this.#names(open).part}.added`, ...place, part: this.#part(open) },
    ];
  }

  #place({ kind, id }: Open) {
    const part = this.#summary && kind === "reasoning" ? { summary_index: 0 } : { content_index: 0 };
    return { item_id: id, output_index: this.#done.length, ...part };
  }

  #names({ kind }: Open): { text: string; part: string } {
    if (kind === "message") return { text: "response.output_text", part: "response.content_part" };
    return this.#summary
      ? { text: "response.reasoning_summary_text", part: "response.reasoning_summary_part" }
      : { text: "response.reasoning_text", part: "response.content_part" };
  }

  #part({ kind, text, logprobs }: Open): object {
    if (kind === "message") return { type: "output_text", text, annotations: [], logprobs: [...logprobs] };
    return { type: this.#summary ? "summary_text" : "reasoning_text", text };
  }

  #item({ kind, id }: Open, status: Status, parts: object[]): object {
    if (kind === "message") return { id, type: "message", status, role: "assistant", content: parts };
    const fields = this.#summary ? { summary: parts } : { summary: [], content: parts };
    return { id, type: "reasoning", status, ...fields };
  }
}
