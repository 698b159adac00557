// The types as strict as a project may have them.
import { createServer } from "node:http";
import { Engine, type GenerateOptions, type GenerateRequest, type Message, SdarError, type Tool } from "sdar-engine";
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
const tools: Tool[] = [
  { name: "now" },
  { type: "function", function: { name: "weather", parameters: { type: "object" }, strict: true } },
];
// @ts-expect-error: tools are for messages
const raw: GenerateRequest = { prompt: "a", tools };
// @ts-expect-error: a message has content, if only null
const empty: Message = { role: "assistant" };
// @ts-expect-error: parts are text
const image: Message = { role: "user", content: [{ type: "image_url", image_url: "" }] };
const messages: Message[] = [{ role: "user", content: [{ type: "text", text: "Now?" }] }];
const { toolCalls = [], reasoning } = await engine.generate({ messages, tools, toolChoice: { name: "now" } }).result();
messages.push({ role: "assistant", content: null, toolCalls, ...(reasoning !== undefined && { reasoning }) });
for (const { id, value } of toolCalls) messages.push({ role: "tool", toolCallId: id, content: String(value.zone) });
await engine.countTokens(messages, { tools, templateOptions: { enable_thinking: false } });
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
console.log(text, two, none, both, raw, empty, image, httpStatusOf(new SdarError("QUEUE_FULL", "full")));
