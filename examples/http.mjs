// Streams answers over HTTP, without a framework. A client that hangs up ends its request: nobody pays for tokens that nobody reads.
//   PORT=8080 node examples/http.mjs
//   curl -N localhost:8080 -H 'x-tenant: me' -d 'Count the atoms in Ca3(PO4)2'
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";
import { Engine, SdarError } from "sdar-engine";
import { httpStatusOf } from "sdar-engine/http";

const engine = await Engine.load("sdar-nano", { queue: { maxRequests: 100 } });
engine.on("finished", ({ id, finishReason }) => console.log(`request ${id}: ${finishReason}`));
engine.on("failed", ({ id, error }) => console.log(`request ${id}: ${error.code}`));

async function answer(request, response) {
  const run = engine.generate({
    messages: [{ role: "user", content: await text(request) }],
    key: request.headers["x-tenant"]?.toString() || undefined, // tenants get even shares
    deadline: 60_000,
  });
  response.once("close", run.abort); // also after a complete answer, where it does nothing
  await run.started; // until the request is accepted, an error can still become a status
  response.writeHead(200, { "content-type": "text/plain; charset=utf-8" });
  response.flushHeaders();
  // A slow client holds back its own run and no other: unread tokens stay in the engine, up to `highWaterMark`.
  await pipeline(run.textStream, response);
}

function fail(response, error) {
  if (response.headersSent) return response.destroy(); // a cut stream, not one that looks complete
  const known = SdarError.is(error) ? error : new SdarError("INTERNAL", "internal error");
  // QUEUE_FULL knows when there is probably room.
  const retry = known.retryAfterMs ? { "retry-after": Math.ceil(known.retryAfterMs / 1000) } : {};
  response.writeHead(httpStatusOf(known), retry).end(`${known.code}: ${known.message}\n`);
}

const server = createServer((request, response) => {
  answer(request, response).catch((error) => fail(response, error));
});
server.listen(Number(process.env.PORT ?? 8080), () => console.log(`http://localhost:${server.address().port}`));

// What was accepted is answered before the process ends.
process.once("SIGTERM", async () => {
  server.close();
  await engine.dispose({ drain: true });
});
