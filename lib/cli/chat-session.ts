// A conversation at the command line: what a line does, whoever enters it.
import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Chat, ChatJson } from "../chat.js";
import { readJson } from "../checkpoint.js";
import { defined } from "../defined.js";
import type { Engine } from "../engine.js";
import { invalidOption, SdarError, wrapError } from "../errors.js";
import { describeOptions, setOption } from "../option-text.js";
import { qualities } from "../quality.js";
import type { GenerateDefaults } from "../types.js";
import { canWatch, printRun, saved, summary } from "./answer.js";
import { commandOf, commands, helpText } from "./chat-commands.js";
import { onInterrupt } from "./signals.js";
import { dim, isTerminal, printable } from "./terminal.js";

export interface SessionSettings {
  system?: string;
  watch: boolean;
  frame: number;
  options: GenerateDefaults;
}

/** Of a saved conversation, in bytes. */
const maxSaved = 2 ** 26;

export class ChatSession {
  /** somebody said /exit */
  ended = false;
  readonly #engine: Engine;
  readonly #frame: number;
  #watch: boolean;
  #chat: Chat;
  #options: GenerateDefaults;
  /** the file of this conversation, which may be written again */
  #file: string | undefined;

  /** Throws INVALID_OPTION. */
  constructor(engine: Engine, { system, watch, frame, options }: SessionSettings) {
    this.#engine = engine;
    this.#frame = frame;
    this.#options = options;
    this.#chat = engine.chat({ ...(system !== undefined && { system }), generate: options });
    this.#watch = watch && this.#canWatch();
  }

  /** Does what a line says; errors are told, and the conversation goes on. */
  async takeAtTerminal(line: string): Promise<void> {
    try {
      await this.take(line);
    } catch (error) {
      process.stderr.write(`sdar: ${printable(wrapError(error).message)}\n`);
    }
  }

  /** Does what a line says: a command, or a message that is answered. */
  async take(line: string): Promise<void> {
    if (line.trim() === "") return;
    // Two slashes are one of a message.
    if (!line.startsWith("/") || line.startsWith("//")) return this.#answer(line.replace(/^\/\//, "/"));
    const { name, rest } = commandOf(line);
    await this.#do[name](rest);
  }

  /** What may be meant by a line that is not finished. */
  completions(line: string): string[] {
    const [first = "", ...more] = line.split(" ");
    if (!line.startsWith("/")) return [];
    if (more.length === 0)
      return Object.keys(commands).flatMap((name) => (`/${name}`.startsWith(first) ? `/${name}` : []));
    const values = { "/quality": [...qualities, "default"], "/watch": ["on", "off"] }[first] ?? [];
    return values.map((value) => `${first} ${value}`).filter((whole) => whole.startsWith(line));
  }

  /** Goes on with a conversation that `/save` has written. */
  load(given: string): void {
    const file = resolve(given);
    const json = readJson(file, "DATA_INVALID", maxSaved);
    if (!json) throw new SdarError("FILE_NOT_FOUND", `no file ${file}`);
    if (!Array.isArray(json.messages))
      throw new SdarError("DATA_INVALID", `${file} is no saved conversation: it has no messages`);
    const { system, messages, contextShift, cut } = json as unknown as ChatJson;
    this.#restart({ system, messages, contextShift, cut } as ChatJson);
    this.#file = file;
  }

  readonly #do: Record<keyof typeof commands, (rest: string) => void | Promise<void>> = {
    help: () => this.#say(helpText()),
    reset: () => {
      const { system } = this.#chat.toJSON();
      this.#restart({ ...(system !== undefined && { system }) });
      this.#say("a new conversation");
    },
    system: (rest) => {
      if (rest === "") return this.#say(this.#chat.toJSON().system ?? "no system message");
      const { system, ...others } = this.#chat.toJSON();
      this.#restart(rest === "none" ? others : { ...others, system: rest });
      this.#say(rest === "none" ? "no system message" : "system message set");
    },
    options: (rest) => {
      if (rest !== "") this.#setOptions(rest === "none" ? {} : rest.split(/\s+/).reduce(setOption, this.#options));
      this.#say(describeOptions(this.#options));
    },
    quality: (rest) => {
      const { quality = "default", denoise, ...others } = this.#options;
      if (rest === "") return this.#say(denoise ? describeOptions({ denoise }) : `quality ${quality}`);
      this.#setOptions(rest === "default" ? others : ({ ...others, quality: rest } as GenerateDefaults));
      this.#say(`quality ${rest}`);
    },
    watch: (rest) => {
      if (!["", "on", "off"].includes(rest)) throw invalidOption("/watch", rest, "on or off");
      const on = rest === "" ? !this.#watch : rest === "on";
      if (on && !this.#canWatch()) throw new SdarError("INVALID_OPTION", `/watch: ${this.#whyNotWatch()}`);
      this.#watch = on;
      this.#say(`watching ${on ? "on" : "off"}`);
    },
    show: () => {
      for (const { role, content } of this.#chat.messages)
        process.stdout.write(`${role === "user" ? "> " : ""}${printable(String(content))}\n`);
    },
    undo: () => {
      this.#forget();
      this.#say("the last turn is forgotten");
    },
    retry: () => this.#answer(this.#forget()),
    save: (rest) => this.#save(rest),
    load: (rest) => {
      if (rest === "") throw new SdarError("INVALID_OPTION", "/load: give a file");
      this.load(rest);
      this.#say(`${this.#chat.messages.length} messages`);
    },
    exit: () => {
      this.ended = true;
    },
  };

  async #answer(text: string): Promise<void> {
    const interrupt = new AbortController();
    const { signal } = interrupt;
    const terminal = process.stdin.isTTY === true;
    // At a terminal Ctrl-C ends the answer alone.
    onInterrupt((code) => {
      interrupt.abort();
      if (!terminal) process.exitCode = code;
    });
    const watch = this.#watch;
    const run = this.#chat.send(text, { signal, ...(watch && { drafts: true }) });
    try {
      const { endTokenIds } = this.#engine.model;
      const printed = await printRun(run, { watch, frame: this.#frame, endTokenIds, signal });
      if (isTerminal(process.stderr)) this.#say(watch ? saved(printed) : summary(printed));
    } catch (error) {
      // It had not begun.
      if (!SdarError.is(error, "ABORTED")) throw error;
    } finally {
      // One that comes as the answer ends was meant for it.
      onInterrupt((code) => (terminal ? undefined : process.exit(code)));
    }
  }

  /** The last thing said by the user, which is no longer part of the conversation, nor its answer. */
  #forget(): string {
    const { messages, cut, ...others } = this.#chat.toJSON();
    const last = messages.findLastIndex(({ role }) => role === "user");
    if (last === -1) throw new SdarError("INVALID_OPTION", "nothing was said yet");
    const said = String(messages[last]?.content);
    this.#restart({ ...others, messages: messages.slice(0, last), cut: Math.min(cut, last) });
    return said;
  }

  #setOptions(options: GenerateDefaults): void {
    // Checked before anything changes.
    this.#chat = this.#engine.chat({ ...this.#chat.toJSON(), generate: options });
    this.#options = options;
  }

  #restart(state: Partial<ChatJson>): void {
    this.#chat = this.#engine.chat({ ...defined(state), generate: this.#options });
  }

  #save(rest: string): void {
    const file = rest === "" ? this.#file : resolve(rest);
    if (file === undefined) throw new SdarError("INVALID_OPTION", "/save: give a file");
    const text = `${JSON.stringify(this.#chat.toJSON(), null, 1)}\n`;
    try {
      writeFileSync(file, text, { flag: file === this.#file ? "w" : "wx", mode: 0o600 });
    } catch (cause) {
      const there = (cause as NodeJS.ErrnoException).code === "EEXIST";
      const why = there ? "it is there already; give another name" : (cause as Error).message;
      throw new SdarError("FILE_UNWRITABLE", `cannot write ${file}: ${why}`, { cause });
    }
    this.#file = file;
    this.#say(`${file}: ${this.#chat.messages.length} messages`);
  }

  #canWatch(): boolean {
    return this.#whyNotWatch() === undefined;
  }

  #whyNotWatch(): string | undefined {
    if (!canWatch()) return "standard output is no terminal";
    return this.#engine.model.decoding === "autoregressive" ? "this model writes a token at a time" : undefined;
  }

  /** Beside the answers, and only to somebody who is there. */
  #say(text: string): void {
    if (process.stdin.isTTY !== true) return;
    process.stderr.write(`${dim(printable(text), process.stderr)}\n`);
  }
}
