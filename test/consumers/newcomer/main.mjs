// A newcomer's path: nothing is compiled, a question, a conversation in a pipe, the server with its page and a client of OpenAI's.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import OpenAI from "openai";

assert.ok(!existsSync("node_modules/sdar-engine/build"), "the addon comes with the package");
const sdar = (args, input) => execFileSync("node_modules/.bin/sdar", args, { input, encoding: "utf8", stdio: "pipe" });
const sorted = sdar(["generate", "Sort: 6 60 96 72"]);
assert.notEqual(sorted.trim(), "");
const answers = sdar(["chat"], "Sort: 6 60 96 72\n/reset\nSort: 6 60 96 72\n");
assert.equal(answers, sorted + sorted);

const server = spawn(process.execPath, ["node_modules/.bin/sdar", "serve", "--port", "0"], {
  stdio: ["ignore", "pipe", "inherit"],
});
try {
  const [line] = await once(createInterface({ input: server.stdout }), "line");
  const [url] = /http:\S+$/.exec(line);
  const page = await fetch(url);
  assert.equal(page.status, 200);
  assert.match(page.headers.get("content-type"), /^text\/html/);
  assert.match(await page.text(), /<script/);
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
  const messages = [{ role: "user", content: "Sort: 6 60 96 72" }];
  const { choices } = await client.chat.completions.create({ model: "sdar-nano", messages });
  assert.equal(`${choices[0].message.content}\n`, sorted);
} finally {
  const closed = once(server, "close");
  server.kill();
  assert.deepEqual(await closed, [0, null]);
}
