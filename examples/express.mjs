// A chat route in Express: server-sent events, an end for the request of a client that hangs up, a status for what is refused.
//   npm install express && PORT=8080 node examples/express.mjs
//   curl -N localhost:8080/chat -H 'content-type: application/json' -d '{"messages":[{"role":"user","content":"31 x 7"}]}'
import express from "express";
import { Engine } from "sdar-engine";
import { pipeSSE } from "sdar-engine/http";

const engine = await Engine.load("sdar-nano", { generate: { maxTokens: 256, deadline: 60_000 } });
const app = express().use(express.json());

app.post("/chat", async (request, response) => {
  const outcome = await pipeSSE(engine.generate({ messages: request.body?.messages }), response);
  console.log(outcome.finishReason ?? outcome.code);
});

const server = app.listen(Number(process.env.PORT ?? 8080), () => {
  console.log(`http://localhost:${server.address().port}`);
});
process.once("SIGTERM", async () => {
  server.close();
  await engine.dispose({ drain: true }); // what was accepted is answered before the process ends
});
