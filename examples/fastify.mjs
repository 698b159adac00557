// A chat route in Fastify: server-sent events, an end for the request of a client that hangs up, a status for what is refused.
//   npm install fastify && PORT=8080 node examples/fastify.mjs
//   curl -N localhost:8080/chat -H 'content-type: application/json' -d '{"messages":[{"role":"user","content":"31 x 7"}]}'
import Fastify from "fastify";
import { Engine } from "sdar-engine";
import { pipeSSE } from "sdar-engine/http";

const engine = await Engine.load("sdar-nano", { generate: { maxTokens: 256, deadline: 60_000 } });
const app = Fastify();

app.post("/chat", async (request, reply) => {
  reply.hijack(); // the answer is written to Node's own response
  const outcome = await pipeSSE(engine.generate({ messages: request.body?.messages }), reply.raw);
  console.log(outcome.finishReason ?? outcome.code);
});

console.log(await app.listen({ port: Number(process.env.PORT ?? 8080), host: "localhost" }));
process.once("SIGTERM", async () => {
  await app.close(); // what was accepted is answered before the process ends
  await engine.dispose({ drain: true });
});
