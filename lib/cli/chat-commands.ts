// What can be said in a conversation besides messages.
import { SdarError } from "../errors.js";

export const commands = {
  help: ["", "lists these"],
  reset: ["", "begins a new conversation, with the same system message"],
  system: ["[TEXT]", "shows or sets the system message; none takes it away"],
  options: ["[NAME=VALUE …]", "shows or sets options, such as temperature=0.7; none takes all away"],
  quality: ["[NAME]", "shows or sets exact, balanced, fast or default"],
  watch: ["[on|off]", "shows the block being denoised, or no longer"],
  show: ["", "prints the conversation"],
  undo: ["", "forgets the last message and its answer"],
  retry: ["", "asks the last message again"],
  save: ["[FILE]", "writes the conversation; without a file to the one that it has"],
  load: ["FILE", "goes on with a saved conversation"],
  exit: ["", "ends (Ctrl-D does so too)"],
} as const satisfies Record<string, readonly [what: string, does: string]>;

const others: Record<string, keyof typeof commands> = { quit: "exit", "?": "help", clear: "reset" };

/** The command of a line that begins with a slash, and what is behind it. A beginning is enough where only one fits. */
export function commandOf(line: string): { name: keyof typeof commands; rest: string } {
  const [, word = "", rest = ""] = /^\/(\S*)\s*(.*?)\s*$/s.exec(line) ?? [];
  const names = Object.keys(commands) as (keyof typeof commands)[];
  const known = names.find((name) => name === word) ?? others[word];
  const fitting = word === "" ? [] : names.filter((name) => name.startsWith(word));
  const name = known ?? (fitting.length === 1 ? fitting[0] : undefined);
  if (name !== undefined) return { name, rest };
  throw new SdarError(
    "INVALID_OPTION",
    `no command /${word}; /help lists them, and a message that begins with / takes two`,
  );
}

export function helpText(): string {
  const lines = Object.entries(commands).map(([name, [what, does]]) => [`/${name} ${what}`.trim(), does] as const);
  const width = Math.max(...lines.map(([command]) => command.length)) + 2;
  return [
    ...lines.map(([command, does]) => `${command.padEnd(width)}${does}`),
    "Ctrl-C stops an answer. A message that begins with / takes two of them.",
  ].join("\n");
}
