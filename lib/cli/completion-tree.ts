// The commands as a shell's completions need them.
import type { Argument, Command, Option } from "commander";
import { shippedModel } from "../checkpoint.js";

/** What may stand for a value: words, names of files, names of folders, or what nobody can guess. */
export interface Values {
  words: string[];
  kind: "words" | "file" | "folder" | "any";
}

export interface CompletedOption {
  /** such as `-m` and `--model` */
  names: string[];
  description: string;
  /** undefined: it takes no value; of one that may be left out, too, what may follow is not told */
  values: Values | undefined;
}

export interface CompletedCommand {
  /** with all above it, such as `sdar bench serve` */
  path: string;
  subcommands: { name: string; description: string }[];
  options: CompletedOption[];
  values: Values;
}

/** A command and all below it, the ones above first. */
export function describeProgram(command: Command, above = ""): CompletedCommand[] {
  const path = `${above} ${command.name()}`.trim();
  const options = command.options.filter(({ hidden }) => !hidden).map(describeOption);
  const help: CompletedOption = { names: ["-h", "--help"], description: "display help for command", values: undefined };
  const [first] = command.registeredArguments;
  const own: CompletedCommand = {
    path,
    subcommands: command.commands.map((one) => ({ name: one.name(), description: one.description() })),
    options: [...options, help],
    values: first ? valuesOf(first.name(), first) : { words: [], kind: "any" },
  };
  return [own, ...command.commands.flatMap((one) => describeProgram(one, path))];
}

function describeOption(option: Option): CompletedOption {
  const { short, long, description, required, flags } = option;
  const names = [short, long].filter((name) => name !== undefined);
  const placeholder = /[<[]([\w-]+)/.exec(flags)?.[1] ?? "";
  return { names, description, values: required ? valuesOf(placeholder, option) : undefined };
}

/** By the words that its parser allows, else by its name. */
function valuesOf(name: string, { argChoices, parseArg }: Pick<Option | Argument, "argChoices" | "parseArg">): Values {
  const { allowed } = (parseArg ?? {}) as { allowed?: readonly string[] };
  const words = argChoices ?? allowed;
  if (words) return { words: [...words], kind: "words" };
  if (name === "model") return { words: [shippedModel], kind: "folder" };
  if (name === "file") return { words: [], kind: "file" };
  if (name === "folder" || name === "path") return { words: [], kind: "folder" };
  return { words: [], kind: "any" };
}
