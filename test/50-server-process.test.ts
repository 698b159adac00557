// `sdar serve` as a process: what it prints, how it ends.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import t, { type Test } from "tap";
import { engineOptions, withEngineFlags } from "../lib/cli/engine-flags.js";
import { main, sdar } from "./sdar.js";
import { eventsOf } from "./serving.js";

const messages = [{ role: "user", content: "Count the atoms in Ca3(PO4)2" }];
/** Longer than a test waits, on any machine. */
const long = { messages, stream: true, ignore_eos: true, n: 32, temperature: 3, sdar: { strategy: "sequential" } };

async function serve(t: Test, args: string[], env: NodeJS.ProcessEnv = {}) {
  const child = spawn(process.execPath, [main, "serve", "--port", "0", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, SDAR_ISA: "portable", ...env },
  });
  t.teardown(() => child.kill("SIGKILL"));
  const closed = once(child, "close");
  let stdout = "";
  let stderr = "";
  child.stderr?.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  child.stdout?.setEncoding("utf8").on("data", (text) => {
    stdout += text;
  });
  await Promise.race([once(child.stdout as NonNullable<ChildProcess["stdout"]>, "data"), closed]);
  const url = /http:\/\/\S+/.exec(stdout)?.[0] ?? "";
  const ask = (path: string, body?: unknown, headers: Record<string, string> = {}) =>
    fetch(url + path, {
      ...(body !== undefined && { method: "POST", body: JSON.stringify(body) }),
      headers: { ...(body !== undefined && { "content-type": "application/json" }), ...headers },
    });
  return { child, closed, ask, told: () => ({ stdout, stderr }) };
}

const path = "/v1/chat/completions";

t.test("SIGTERM: what runs may end, what is new is refused, the rest is told", async (t) => {
  const { child, closed, ask, told } = await serve(t, ["--grace", "6000"]);
  t.match(told(), { stdout: /^sdar serve: sdar-nano at http:\/\/127\.0\.0\.1:\d+\n$/, stderr: "" });
  t.equal((await ask("/ready")).status, 200);
  const endless = await ask(path, { ...long, n: 4 });
  const short = await ask(path, { messages, stream: true, max_tokens: 8 });
  child.kill("SIGTERM");
  let ready = await ask("/ready");
  for (let i = 0; i < 50 && ready.status === 200; i++) {
    await sleep(10);
    ready = await ask("/ready");
  }
  t.equal(ready.status, 503);
  t.match(await ready.json(), { error: { code: "shutting_down", type: "server_error" } });
  t.equal((await ask(path, { messages })).status, 503);
  t.equal((await ask("/health")).status, 200, "it lives");
  t.equal(eventsOf(await short.text()).at(-1), "[DONE]", "what runs comes to its end");
  const events = eventsOf(await endless.text());
  t.match(JSON.parse(events.at(-1) as string), { error: { code: "shutting_down" } }, "and what does not is told");
  t.same(await closed, [0, null]);
});

t.test("a second signal ends at once", async (t) => {
  const { child, closed, ask } = await serve(t, ["--grace", "600000"]);
  const endless = await ask(path, long);
  child.kill("SIGTERM");
  await sleep(700); // sooner it would be taken for the same one
  child.kill("SIGTERM");
  t.same(await closed, [143, null]);
  await t.rejects(endless.text());
});

t.test("models, keys and defaults", async (t) => {
  const keys = t.testdir({ "keys.txt": "# who may ask\nalice sk-alice\n", "none.txt": "# nobody\n" });
  const { ask, child, closed, told } = await serve(t, [
    ...["--model", "one=sdar-nano", "--model", "org/two=models/sdar-nano", "--api-keys", `${keys}/keys.txt`],
    ...["--max-tokens", "3", "--cors", "https://page.example", "--log-level", "info"],
  ]);
  const key = { authorization: "Bearer sk-alice" };
  t.equal((await ask("/v1/models")).status, 401);
  const { data } = (await (await ask("/v1/models", undefined, key)).json()) as { data: { id: string }[] };
  t.same(
    data.map(({ id }) => id),
    ["one", "org/two"],
  );
  const answer = await ask(path, { model: "org/two", messages }, key);
  t.match(await answer.json(), { choices: [{ finish_reason: "length" }], usage: { completion_tokens: 3 } });
  child.kill("SIGINT");
  t.same(await closed, [0, null]);
  const lines = told()
    .stderr.trim()
    .split("\n")
    .map((line) => JSON.parse(line) as object);
  t.match(
    lines.find((line) => "tenant" in line && "status" in line),
    { tenant: "alice", status: 200, method: "GET" },
  );
  t.notMatch(told().stderr, /sk-alice|atoms/, "neither keys nor texts are logged");

  t.match(await sdar(["serve", "--api-keys", `${keys}/none.txt`]), { status: 2, stderr: /no key/ });
  t.match(await sdar(["serve", "--api-keys", `${keys}/missing`]), { status: 1, stderr: /no file .*missing/ });
});

t.test("flags of the engine become options of Engine.load", (t) => {
  const optionsOf = (...args: string[]) =>
    engineOptions(withEngineFlags(new Command()).parse(args, { from: "user" }).opts());
  t.same(optionsOf(), { kvCache: {}, prefixCache: true, generate: {} });
  t.same(
    optionsOf(
      ...["--device", "cpu", "--weights", "int8", "--threads", "2", "--isa", "portable", "--max-concurrent", "8"],
      ...["--prefill-tokens", "64", "--kv-tokens", "4096", "--kv-dtype", "f32", "--no-prefix-cache"],
      ...["--weight-cache", "packed", "--weight-cache-bytes", "1000", "--max-tokens", "3", "--quality", "fast"],
    ),
    {
      ...{ device: "cpu", weights: "int8", threads: 2, isa: "portable", maxConcurrent: 8, prefillTokens: 64 },
      kvCache: { tokens: 4096, dtype: "f32" },
      prefixCache: false,
      ...{ weightCache: "packed", weightCacheBytes: 1000 },
      generate: { maxTokens: 3, quality: "fast" },
    },
  );
  t.match(optionsOf("--kv-bytes", "65536", "--no-weight-cache"), { kvCache: { bytes: 65536 }, weightCache: false });
  t.end();
});

t.test("what is wrong is told in one line", async (t) => {
  const fails = async (args: string[], status: number, stderr: RegExp) =>
    t.match(await sdar(["serve", "--port", "0", ...args]), { status, stdout: "", stderr });
  await fails(["--model", "x=no/such-model"], 1, /^sdar: no model no\/such-model.*\n$/);
  await fails(["--model", "=x"], 2, /--model.*Give NAME=FOLDER/);
  await fails(["--draft", "y=sdar-nano"], 2, /^sdar: --draft: "y" is not allowed; give one of sdar-nano\n$/);
  await fails(["--port", "many"], 2, /--port.*not a whole number/);
  await fails(["--kv-tokens", "64", "--kv-bytes", "64"], 2, /^sdar: kvCache: .*either bytes or tokens/);
  await fails(["--quality", "best"], 2, /^sdar: generate\.quality: "best" is not allowed/);
});
