// sdar chat: a conversation with a model.
import { Command } from "commander";
import { shippedModel } from "../checkpoint.js";
import { Engine } from "../engine.js";
import { SdarError } from "../errors.js";
import { ChatSession } from "./chat-session.js";
import {
  type AnswerFlags,
  answerOptions,
  type ModelFlags,
  numeric,
  withAnswerFlags,
  withModelFlags,
} from "./generation.js";
import { History, historyFile } from "./history.js";
import { LineInput } from "./line-input.js";
import { loadProgress } from "./progress.js";
import { prompts } from "./prompts.js";
import { onInterrupt } from "./signals.js";
import { dim } from "./terminal.js";

interface Flags extends AnswerFlags, ModelFlags {
  system?: string;
  load?: string;
  history: boolean;
  watch?: boolean;
  frame: number;
}

export function chatCommand(): Command {
  const command = new Command("chat")
    .description("Holds a conversation with a model; /help there tells what it can do")
    .optionsGroup("Conversation:")
    .option("--system <text>", "a system message before the conversation")
    .option("--load <file>", "go on with a conversation that /save has written")
    .option("--no-history", "keep no file of the lines that were entered")
    .option("-w, --watch", "show the block being denoised: masked positions, then tokens coloured by step")
    .option("--frame <ms>", "with --watch, the least time a step is shown", numeric, 250);
  return withModelFlags(withAnswerFlags(command))
    .addHelpText(
      "after",
      `
Without a terminal each line of standard input is a turn of one conversation: a
message, which the model reads after all before it, or a command such as /reset,
which begins a new one. The answers alone come out.

Examples:
  sdar chat
  sdar chat --watch --system 'Answer briefly.'
  sdar chat -m JetLM/SDAR-1.7B-Chat --temperature 0.7 --weights int8
  printf '${prompts[1].prompt}\\n${prompts[3].prompt}\\n' | sdar chat`,
    )
    .action(chat);
}

async function chat(flags: Flags): Promise<void> {
  const interrupt = new AbortController();
  const { signal } = interrupt;
  onInterrupt(() => interrupt.abort());
  const { device, weights, threads, model } = flags;
  const { clear, onProgress } = loadProgress(model);
  let engine: Engine;
  try {
    engine = await Engine.load(model, { device, weights, threads, signal, onProgress }).finally(clear);
  } catch (error) {
    if (!signal.aborted) throw error;
    process.exitCode = 130;
    return;
  }
  await using _ = engine;
  const { hasTokenizer, hasChatTemplate, path } = engine.model;
  if (!hasTokenizer) throw new SdarError("TOKENIZER_MISSING", `${path} has no tokenizer.json, and so no words`);
  if (!hasChatTemplate) {
    throw new SdarError("TEMPLATE_MISSING", `${path} has no chat template; use sdar generate --raw`);
  }
  const history = new History(flags.history ? historyFile() : undefined);
  const session = new ChatSession(engine, { ...flags, watch: flags.watch === true, options: answerOptions(flags) });
  if (flags.load !== undefined) session.load(flags.load);
  const input = new LineInput({
    prompt: "> ",
    history,
    complete: (line) => session.completions(line),
    hint: "Ctrl-C again, or Ctrl-D, ends the conversation",
  });
  if (input.terminal) greet(engine, flags, history);
  try {
    for await (const line of input.lines()) {
      if (input.terminal) await session.takeAtTerminal(line);
      else await session.take(line);
      if (session.ended || Number(process.exitCode) > 128) break;
    }
  } finally {
    input.close();
  }
}

function greet({ model: { parameters, weights, device } }: Engine, { model }: Flags, { problem }: History): void {
  const say = (text: string) => process.stderr.write(`${dim(text, process.stderr)}\n`);
  say(
    `${model}: ${(parameters / 1e6).toFixed(0)} M parameters, ${weights} on ${device}; /help tells more, Ctrl-D ends`,
  );
  // What the shipped model knows is not what anyone would guess.
  if (model === shippedModel) say(`try: ${prompts.map(({ prompt }) => prompt).join("\n     ")}`);
  if (problem !== undefined) say(problem);
}
