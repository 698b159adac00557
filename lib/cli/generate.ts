// sdar generate: one prompt, printed as it is denoised.
import { createInterface } from "node:readline";
import { Command } from "commander";
import { shippedModel } from "../checkpoint.js";
import { Engine } from "../engine.js";
import { SdarError } from "../errors.js";
import type { GenerateRequest } from "../types.js";
import { canWatch, printRun, saved, summary } from "./answer.js";
import {
  type AnswerFlags,
  answerOptions,
  type ModelFlags,
  numeric,
  withAnswerFlags,
  withModelFlags,
} from "./generation.js";
import { loadProgress } from "./progress.js";
import { commandLines, prompts } from "./prompts.js";
import { onInterrupt } from "./signals.js";
import { isTerminal } from "./terminal.js";

interface Flags extends AnswerFlags, ModelFlags {
  raw?: boolean;
  system?: string;
  watch?: boolean;
  frame: number;
  json?: boolean;
}

export function generateCommand(): Command {
  const command = new Command("generate")
    .description("Answers a prompt and prints the answer as it is denoised")
    .argument("[prompt]", "the prompt; - reads standard input; without it a terminal asks, else standard input is read")
    .optionsGroup("Output:")
    .option("-w, --watch", "show the block being denoised: masked positions, then tokens coloured by step")
    .option("--frame <ms>", "with --watch, the least time a step is shown", numeric, 250)
    .option("--json", "print one JSON object with text, tokens, usage and timings")
    .optionsGroup("Prompt:")
    .option("--system <text>", "a system message before the prompt")
    .option("--raw", "take the prompt as it is, without the chat template");
  return withModelFlags(withAnswerFlags(command))
    .addHelpText(
      "after",
      `\nExamples, which the shipped model answers right:\n  ${commandLines.join("\n  ")}\n  sdar generate --watch '${prompts[0].prompt}'`,
    )
    .action(generate);
}

async function generate(given: string | undefined, flags: Flags, command: Command): Promise<void> {
  const prompt = await readPrompt(given, flags, command);
  const interrupt = new AbortController();
  onInterrupt(() => interrupt.abort());
  const { signal } = interrupt;
  try {
    const loading = performance.now();
    const { device, weights, threads } = flags;
    const { clear, onProgress } = loadProgress(flags.model);
    await using engine = await Engine.load(flags.model, { device, weights, threads, signal, onProgress }).finally(
      clear,
    );
    const loadMs = performance.now() - loading;
    if (!flags.raw && !engine.model.hasChatTemplate && engine.model.hasTokenizer) {
      throw new SdarError("TEMPLATE_MISSING", `${engine.model.path} has no chat template; use --raw`);
    }
    const watch = flags.watch === true && !flags.json && canWatch();
    const run = engine.generate({ ...request(prompt, flags), drafts: watch, signal });
    const { frame, json: silent } = flags;
    const printed = await printRun(run, { watch, frame, silent, signal, endTokenIds: engine.model.endTokenIds });
    const { result, firstTextMs, totalMs, tokensPerSecond } = printed;
    if (flags.json) {
      printJson({ model: engine.model.path, ...result, timings: { loadMs, firstTextMs, totalMs, tokensPerSecond } });
    } else {
      process.stderr.write(`${watch ? saved(printed) : summary(printed)}\n`);
      if (flags.model === shippedModel && isTerminal(process.stderr)) process.stderr.write(`${more(prompt)}\n`);
    }
  } catch (error) {
    if (!(error instanceof SdarError && error.code === "ABORTED")) throw error;
  }
  if (signal.aborted) process.exitCode = 130;
}

function request(prompt: string, flags: Flags): GenerateRequest {
  const messages = [{ role: "user", content: prompt }];
  if (flags.system !== undefined) messages.unshift({ role: "system", content: flags.system });
  return { ...(flags.raw ? { prompt } : { messages }), ...answerOptions(flags) } as GenerateRequest;
}

async function readPrompt(given: string | undefined, { raw }: Flags, command: Command): Promise<string> {
  if (raw && given !== undefined && given !== "-") return given;
  const asks = given === undefined && process.stdin.isTTY;
  let prompt = given;
  if (asks) prompt = await ask();
  else if (given === undefined || given === "-") {
    prompt = "";
    for await (const part of process.stdin.setEncoding("utf8")) prompt += part;
    prompt = prompt.replace(/\r?\n$/, "");
  }
  // The model answers anything, also nothing at all.
  if (prompt === undefined || (raw ? prompt : prompt.trim()) === "") {
    const why = asks || (given !== undefined && given !== "-") ? "it is empty" : "standard input is empty";
    command.error(`error: no prompt: ${why}`);
  }
  return prompt;
}

/** On standard error, so that the answer alone is on standard output. */
async function ask(): Promise<string> {
  process.stderr.write(`Try: ${prompts.map(({ prompt }) => prompt).join("\n     ")}\n`);
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await new Promise((resolve) => {
      lines.question("Prompt: ", resolve);
      lines.once("close", () => resolve(""));
    });
  } finally {
    lines.close();
  }
}

/** What else to ask the shipped model. */
function more(asked: string): string {
  const next = (prompts.findIndex(({ prompt }) => prompt === asked) + 1) % prompts.length;
  return `next: ${commandLines[next]}   (all: sdar generate --help)`;
}

function printJson(value: object): void {
  const text = JSON.stringify(value, (_key, v) => (typeof v === "bigint" ? String(v) : v), 2);
  process.stdout.write(`${text}\n`);
}
