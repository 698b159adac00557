// The types as strict as a project may have them.
import { createServer } from "node:http";
import { Engine, type GenerateOptions, type GenerateRequest, SdarError } from "sdar-engine";
import { httpStatusOf, pipeSSE } from "sdar-engine/http";

const engine = await Engine.load("sdar-nano", { generate: { maxTokens: 16 } });
const options: GenerateOptions = { temperature: 0, quality: "fast" };
const request: GenerateRequest = { prompt: "31 x 7", ...options };
// @ts-expect-error: one prompt alone
const two: GenerateRequest = { prompt: "a", tokens: [1] };
// @ts-expect-error: a prompt there must be
const none: GenerateRequest = { maxTokens: 1 };
// @ts-expect-error: either quality or denoise
const both: GenerateRequest = { prompt: "a", quality: "fast", denoise: { steps: 1 } };
// @ts-expect-error: not for everybody
Engine.loadWith;
const text: string = await engine.generate(request).text();
for await (const part of engine.generate({ tokens: [1, 2] }).textStream) part.trim();
engine.once("finished", ({ usage }) => usage.completionTokens, { signal: AbortSignal.timeout(1000) });
for await (const { item, result, error } of engine.map([1, 2], (n) => ({ prompt: `${n}` }))) {
  console.log(item.toFixed(), result?.text ?? error?.code);
}
createServer(async (_, response) => {
  await pipeSSE(engine.generate({ prompt: "1" }), response);
});
new Response(engine.generate({ prompt: "1" }).toReadableStream());
console.log(text, two, none, both, httpStatusOf(new SdarError("QUEUE_FULL", "full")));
