// An engine whose answers a test writes, with a chat template that has tools and reasoning.
import { setTimeout as sleep } from "node:timers/promises";
import type { Test } from "tap";
import type { FinishReason } from "../lib/index.js";
import { folder, room, sdarTemplate, thinkingTemplate } from "./conversations.js";
import { fakeEngine } from "./fake-binding.js";

/** room for what agents send */
const contextLength = 65_536;

/** What a request is answered with: its text in pieces, and how it ends, if it does. */
export interface Script {
  pieces: string[];
  ends?: FinishReason | "fails" | "goes on";
}

/** Every request gets the next script, and the last one when there is no other. */
export async function scripted(t: Test, scripts: Script[], options: { thinks?: boolean } = {}) {
  const path = folder(t, options.thinks ? thinkingTemplate : sdarTemplate);
  const { engine, native } = await fakeEngine({
    path,
    info: { contextLength, kv: { ...room.kv, tokens: contextLength } },
  });
  /** texts of the prompts that came */
  const prompts: string[] = [];
  const timer = setInterval(() => {
    for (const { id, tokens } of native.requests.splice(0)) {
      const script = scripts[Math.min(prompts.length, scripts.length - 1)] as Script;
      prompts.push(engine.detokenize(tokens));
      void play(id, script);
    }
  }, 1);
  async function play(id: number, { pieces, ends = "end" }: Script) {
    for (const piece of pieces) {
      native.tokens(id, [...Buffer.from(piece)]);
      native.wake();
      await sleep(1);
    }
    if (ends === "goes on") return;
    if (ends === "fails") native.fail(id, "NUMERIC_ERROR", "the logits are not finite in /secret/path");
    else native.finish(id, ends);
    native.wake();
  }
  t.teardown(() => clearInterval(timer));
  return { engine, native, prompts };
}

/** A call as models write it. */
export const called = (name: string, args: object) =>
  `<tool_call>\n${JSON.stringify({ name, arguments: args })}\n</tool_call>`;
