// Conversations to text in which names of control tokens, where they come from messages, tools or options, stay text:
// characters that could spell such a name are replaced by private-use stand-ins before the template sees them, and put back
// between the tokens.

import type { Conversation } from "../conversation.js";
import { SdarError } from "../errors.js";
import { type AddedToken, TokenFinder } from "./added-tokens.js";

/** What renders conversations: the checkpoint's chat template. */
interface Renderer {
  renderConversation(conversation: Conversation): string;
}

export interface PromptText {
  text: string;
  /** puts the characters back that stand-ins replace; undefined when there are none */
  restore?: (text: string) => string;
}

export class MessageText {
  readonly #template: Renderer;
  readonly #control: TokenFinder;
  readonly #other: TokenFinder;
  /** in each name one character that stands for it, and all of that kind */
  readonly #keys = new Set<string>();

  /** `control` are the tokens that messages cannot spell, `text` the other added tokens, which they can. */
  constructor(template: Renderer, { control, text }: { control: AddedToken[]; text: AddedToken[] }) {
    this.#template = template;
    this.#control = new TokenFinder(control);
    this.#other = new TokenFinder(text);
    for (const { content } of control) this.#keys.add(content[keyOf(content)] as string);
  }

  /** Throws TEMPLATE_FAILED. */
  render(conversation: Conversation, parseSpecial: boolean): PromptText {
    const plain = this.#template.renderConversation(conversation);
    const given = JSON.stringify(conversation);
    if (parseSpecial || !mentions(given, this.#keys)) return { text: plain };
    const standIns = new StandIns([...this.#keys], given + plain);
    // Best, no key of a message is left that a template could make a name of by cutting and joining. A template that looks
    // for such characters itself (</think>) writes something else then: it gets the messages with only whole names replaced.
    const rendered = (map: (text: string) => string) => this.#template.renderConversation(mapText(conversation, map));
    const marked = rendered((text) => this.#markKeys(text, standIns));
    if (standIns.restore(marked) === plain) return { text: marked, restore: standIns.restore };
    const named = rendered((text) => this.#markNames(text, standIns));
    // If it made a name of what was none, the one with all keys replaced is at least no forgery.
    const safe = this.#controlsOf(named) === this.#controlsOf(marked);
    return { text: safe ? named : marked, restore: standIns.restore };
  }

  #controlsOf(text: string): string {
    return this.#control
      .split(text)
      .flatMap((part) => (typeof part === "object" ? part.id : []))
      .join();
  }

  /** All keys, but for those in names of added tokens that control nothing. */
  #markKeys(text: string, standIns: StandIns): string {
    return this.#mark(
      text,
      (at) => {
        const kept = this.#other.at(text, at)?.content.length ?? 0;
        return kept > 0 ? { skip: kept } : this.#keys.has(text[at] as string) ? { mark: at } : {};
      },
      standIns,
    );
  }

  /** The keys of whole names of control tokens. */
  #markNames(text: string, standIns: StandIns): string {
    return this.#mark(
      text,
      (at) => {
        const name = this.#control.at(text, at)?.content;
        return name === undefined ? {} : { mark: at + keyOf(name) };
      },
      standIns,
    );
  }

  #mark(text: string, look: (at: number) => { skip?: number; mark?: number }, { of }: StandIns): string {
    let marked = "";
    let done = 0;
    for (let at = 0; at < text.length; ) {
      const { skip = 1, mark } = look(at);
      if (mark !== undefined && mark >= done) {
        marked += text.slice(done, mark) + of(text[mark] as string);
        done = mark + 1;
      }
      at += skip;
    }
    return marked + text.slice(done);
  }
}

/** Characters of the private-use area, which nothing else in a conversation uses, one for each key. */
class StandIns {
  readonly #of = new Map<string, string>();
  readonly #keyOf = new Map<string, string>();

  constructor(keys: string[], used: string) {
    const taken = new Set(used.match(/[\ue000-\uf8ff]/g));
    let next = 0xe000;
    for (const key of keys) {
      while (taken.has(String.fromCharCode(next))) next++;
      if (next > 0xf8ff) {
        throw new SdarError("INVALID_OPTION", "messages: they use all characters of the private-use area", {
          option: "messages",
        });
      }
      const standIn = String.fromCharCode(next++);
      this.#of.set(key, standIn);
      this.#keyOf.set(standIn, key);
    }
  }

  readonly of = (key: string): string => this.#of.get(key) ?? key;

  readonly restore = (text: string): string =>
    text.replace(/[\ue000-\uf8ff]/g, (character) => this.#keyOf.get(character) ?? character);
}

/** Where a name has its key: the first sign in it, else its first character that is no space. */
function keyOf(name: string): number {
  const sign = name.search(/[^\p{L}\p{N}\p{M}\s_]/u);
  return sign >= 0 ? sign : Math.max(0, name.search(/\S/));
}

/** All text in messages, tools and options, but for the names of messages' fields and of options. */
function mapText({ messages, tools, options, ...rest }: Conversation, map: (text: string) => string): Conversation {
  const mapped = (value: unknown): unknown => {
    if (typeof value === "string") return map(value);
    if (Array.isArray(value)) return value.map(mapped);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [map(name), mapped(inner)]));
  };
  const mappedFields = <T extends object>(fields: T) =>
    Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, mapped(value)])) as T;
  return {
    ...rest,
    messages: messages.map(mappedFields),
    ...(tools && { tools: tools.map(mappedFields) }),
    ...(options && { options: mappedFields(options) }),
  };
}

function mentions(json: string, keys: Set<string>): boolean {
  // JSON escapes these two, and as part of a name they are rare.
  return [...keys].some((key) => key === '"' || key === "\\" || json.includes(key));
}
