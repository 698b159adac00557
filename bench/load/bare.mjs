// The least that answers over HTTP: what Node itself takes, without a framework, checks, limits, metrics or a log.
import { createServer } from "node:http";
import { Engine } from "../../dist/index.js";

const [settings] = process.argv.slice(2);
const engine = await Engine.load("sdar-nano", JSON.parse(settings));
const server = createServer(async (request, response) => {
  if (request.url === "/metrics")
    return response.end(`vllm:generation_tokens_total{} ${engine.stats().filledTokens}\n`);
  let body = "";
  for await (const text of request.setEncoding("utf8")) body += text;
  const { messages } = JSON.parse(body);
  const run = engine.generate({ messages });
  response.on("close", run.abort);
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (delta, finish_reason) =>
    response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason }] })}\n\n`);
  send({ content: "" }, null);
  for await (const { text } of run) if (text !== "") send({ content: text }, null);
  send({}, (await run.result()).finishReason);
  response.end("data: [DONE]\n\n");
});
server.listen(0, "127.0.0.1", () => console.log(`at http://127.0.0.1:${server.address().port}`));
