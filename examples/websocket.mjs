// A chat over WebSocket: each connection has its own history, which is cut when it is too long. A text comes in, parts of the
// answer go out as {"text":"…"}, and at its end {"done":"end"}, or {"error":…}. Who hangs up ends the answer.
//   npm install ws && PORT=8080 node examples/websocket.mjs
import { Engine, SdarError } from "sdar-engine";
import { WebSocketServer } from "ws";

const engine = await Engine.load("sdar-nano", { generate: { maxTokens: 256 } });
const server = new WebSocketServer({ port: Number(process.env.PORT ?? 8080), maxPayload: 65_536 });

server.on("connection", (socket) => {
  const chat = engine.chat();
  // A client that reads slowly holds its own answer back.
  const send = (part) => new Promise((sent) => socket.send(JSON.stringify(part), sent));
  socket.on("message", async (message) => {
    const run = chat.send(String(message));
    socket.once("close", run.abort);
    try {
      for await (const text of run.textStream) await send({ text });
      await send({ done: (await run.result()).finishReason });
    } catch (error) {
      await send({ error: SdarError.is(error) ? error : { message: "internal error" } });
    }
    socket.off("close", run.abort);
  });
});
server.on("listening", () => console.log(`ws://localhost:${server.address().port}`));
