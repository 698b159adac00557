// Streams answers over HTTP. A client that hangs up ends its request: nobody pays for tokens that nobody reads.
//   PORT=8080 node examples/http.mjs
//   curl -N localhost:8080 -H 'x-tenant: me' -d 'Count the atoms in Ca3(PO4)2'
import { once } from "node:events";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { Engine, SdarError } from "sdar-engine";

const engine = await Engine.load("sdar-nano", { queue: { maxRequests: 100 } });
engine.on("finished", ({ id, finishReason }) => console.log(`request ${id}: ${finishReason}`));
engine.on("failed", ({ id, error }) => console.log(`request ${id}: ${error.code}`));

const statusOf = { INVALID_OPTION: 400, EMPTY_PROMPT: 400, PROMPT_TOO_LONG: 413, QUEUE_FULL: 503, DISPOSED: 503 };

async function answer(request, response) {
  const content = await text(request);
  const hangUp = new AbortController();
  response.once("close", () => hangUp.abort()); // also after a complete answer, where it does nothing
  const run = engine.generate({
    messages: [{ role: "user", content }],
    key: request.headers["x-tenant"]?.toString() || undefined, // tenants get even shares
    deadline: 60_000,
    signal: hangUp.signal,
  });
  // The first chunk is waited for before the status is sent: until then an error can still become one.
  for await (const chunk of run) {
    if (!response.headersSent) response.writeHead(200, { "content-type": "text/plain; charset=utf-8" });
    // A slow client holds back its own run and no other: unread tokens stay in the engine, up to `highWaterMark`.
    if (!response.write(chunk.text)) await once(response, "drain", { signal: hangUp.signal });
  }
  response.end();
}

function fail(response, error) {
  if (response.destroyed) return; // hung up
  if (response.headersSent) return response.destroy(); // a cut stream, not one that looks complete
  const known = error instanceof SdarError;
  const status = (known && statusOf[error.code]) || 500;
  // QUEUE_FULL knows when there is probably room.
  const retry = known && error.retryAfterMs ? { "retry-after": Math.ceil(error.retryAfterMs / 1000) } : {};
  response.writeHead(status, retry).end(known ? `${error.code}: ${error.message}\n` : "internal error\n");
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
