// Runs what people copy: the examples, the README's code, and the compiler over all code of the docs.
import { spawn, spawnSync } from "node:child_process";
import { on, once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import t, { type Test } from "tap";
import { WebSocket } from "ws";
import { packageRoot } from "../lib/checkpoint.js";
import { eventually } from "./eventually.js";

const example = (name: string) => join(packageRoot, "examples", name);

function node(args: string[], input = "") {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: packageRoot, input, encoding: "utf8" });
  return { status, stdout, stderr };
}

t.test("embed answers, and says what is wrong", async (t) => {
  const answer = "Ca 3, P 2, O 8\nend: 13 tokens in 3 forwards\n";
  t.match(node([example("embed.mjs")]), { status: 0, stdout: answer, stderr: "" });
  const long = node([example("embed.mjs"), "x ".repeat(2000)]);
  t.match(long, { status: 1, stdout: "", stderr: /^PROMPT_TOO_LONG: / });
});

t.test("batch answers line by line, in order, and goes on where it was killed", async (t) => {
  const folder = t.testdir({});
  const [input, output] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
  const count = process.env.SDAR_TEST_FULL ? 2000 : 150;
  const more = Array.from({ length: count }, (_, i) => ({ id: i + 2, prompt: `Sort: ${[97, i % 89, 98].join(" ")}` }));
  const lines = [{ id: 0, prompt: "31 x 7" }, { id: 1, prompt: 5 }, ...more].map((line) => JSON.stringify(line));
  writeFileSync(input, [...lines, "no JSON", "null", ""].join("\n"));
  const written = () => (existsSync(output) ? readFileSync(output, "utf8") : "");

  const child = spawn(process.execPath, [example("batch.mjs"), input, output], { stdio: "ignore" });
  const closed = once(child, "close");
  await eventually(t, () => Number(written().split("\n").length > 20), 1);
  child.kill("SIGKILL");
  await closed;
  const before = written();
  writeFileSync(output, `${before}{"id": 9999, "pro`); // as if it had been killed within a line
  const { status, stderr } = node([example("batch.mjs"), input, output]);
  t.equal(status, 0, stderr);
  t.ok(written().startsWith(before), "what was there stays");
  const answers = written()
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  t.equal(answers.length, lines.length + 2);
  t.match(answers[0], { id: 0, prompt: "31 x 7", answer: "217", finishReason: "end" });
  t.match(answers[1], { id: 1, error: /^messages\[0\]\.content/ });
  t.same(
    answers.slice(2, -2).map(({ id }) => id),
    more.map(({ id }) => id),
  );
  t.match(answers.slice(-2), [{ line: "no JSON", error: /JSON/ }, { error: String }]);
});

/** An example that serves, and the lines that it prints, the first of which is its address. */
async function serving(t: Test, name: string) {
  // Slow enough for a hang-up to come before the end of a long answer.
  const env = { ...process.env, PORT: "0", SDAR_ISA: "portable" };
  const child = spawn(process.execPath, [example(name)], { env });
  t.teardown(() => child.kill("SIGKILL"));
  child.stderr.pipe(process.stderr);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => (await lines.next()).value as string;
  return { child, closed: once(child, "close"), next, url: await next() };
}

// The shipped model goes on with this to the limit of its context.
const long = `Extract JSON: ${"x ".repeat(100)}`;

for (const name of ["express.mjs", "fastify.mjs"]) {
  t.test(`${name} streams events, says what is wrong, aborts on hang-up and drains on SIGTERM`, async (t) => {
    const { child, closed, next, url } = await serving(t, name);
    const post = (messages: unknown) =>
      fetch(`${url}/chat`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ messages }),
      });
    const whole = await post([{ role: "user", content: "31 x 7" }]);
    t.match(whole.headers.get("content-type"), /^text\/event-stream/);
    const events = await whole.text();
    const texts = [...events.matchAll(/^data: \{"text":(".*")\}$/gm)].map(([, text]) => JSON.parse(text as string));
    t.equal(texts.join(""), "217");
    t.match(events, /event: done\ndata: \{"finishReason":"end"/);
    t.equal(await next(), "end");

    const refused = await post(3);
    t.equal(refused.status, 400);
    t.match(await refused.json(), { error: { code: "INVALID_OPTION", option: "messages" } });
    t.equal(await next(), "INVALID_OPTION");

    const client = request(`${url}/chat`, { method: "POST", headers: { "content-type": "application/json" } });
    client.on("error", () => {}); // of the hang-up
    client.end(JSON.stringify({ messages: [{ role: "user", content: long }] }));
    const [response] = await once(client, "response");
    await once(response, "data");
    client.destroy();
    t.equal(await next(), "abort");

    child.kill("SIGTERM");
    t.match(await closed, [0, null]);
  });
}

t.test("websocket.mjs keeps a history for each connection", async (t) => {
  const { url } = await serving(t, "websocket.mjs");
  const socket = new WebSocket(url);
  t.teardown(() => socket.close());
  // Several may come at once, which once() would miss.
  const messages = on(socket, "message");
  await once(socket, "open");
  const ask = async (text: string) => {
    socket.send(text);
    let answer = "";
    for (;;) {
      const { value } = await messages.next();
      const part = JSON.parse(String(value[0]));
      if (part.text === undefined) return { ...part, answer };
      answer += part.text;
    }
  };
  t.same(await ask("31 x 7"), { done: "end", answer: "217" });
  t.match(await ask("Sort: 6 60 96 72"), { done: "end", answer: String });
  t.match(await ask(" ".repeat(3000)), { error: { code: "PROMPT_TOO_LONG" } });
  t.match(await ask("Sort: 5 4 3"), { done: String }, "which is not part of the history");
});

t.test("services are short", (t) => {
  for (const name of ["express.mjs", "fastify.mjs", "websocket.mjs", "batch.mjs"]) {
    const lines = readFileSync(example(name), "utf8").split("\n");
    const own = lines.filter((line) => !/^\s*(\/\/.*|import .*|\}\)?;?|)$/.test(line));
    t.ok(own.length < 25, `${name} has ${own.length} lines of its own`);
  }
  t.end();
});

t.test("http streams, says what is wrong, aborts on hang-up and drains on SIGTERM", async (t) => {
  const { child, closed, next, url } = await serving(t, "http.mjs");
  t.match(url, /^http:\/\/localhost:\d+$/);

  const ask = (body: string) => fetch(url, { method: "POST", body });
  const whole = await ask("Count the atoms in Ca3(PO4)2");
  t.equal(whole.status, 200);
  t.equal(await whole.text(), "Ca 3, P 2, O 8");
  t.equal(await next(), "request 1: end");

  const refused = await ask("x ".repeat(2000));
  t.equal(refused.status, 413);
  t.match(await refused.text(), /^PROMPT_TOO_LONG: /);

  const client = request(url, { method: "POST" });
  client.on("error", () => {}); // of the hang-up
  client.end(long);
  const [response] = await once(client, "response");
  await once(response, "data");
  client.destroy();
  t.match(await next(), /^request \d+: abort$/);

  child.kill("SIGTERM");
  t.match(await closed, [0, null]);
});

const documents = () => {
  const read = (file: string) => ({ file, text: readFileSync(join(packageRoot, file), "utf8") });
  const folders = [".", "docs", "bench", "bench/gpu", "bench/peers", "models/sdar-nano", "test", "test/golden"];
  return folders
    .flatMap((folder) => readdirSync(join(packageRoot, folder)).map((name) => join(folder, name)))
    .filter((name) => name.endsWith(".md"))
    .map(read);
};

/** Code blocks of TypeScript and JavaScript, with where each stands. */
function codeBlocks() {
  return documents().flatMap(({ file, text }) =>
    [...text.matchAll(/^```(?:ts|js)\n(.*?)^```/gms)].map((match) => {
      const line = text.slice(0, match.index).split("\n").length;
      return { file, line, code: match[1] as string };
    }),
  );
}

t.test("links of the docs lead somewhere", async (t) => {
  const anchors = (text: string) =>
    [...text.matchAll(/^#+ (.*)$/gm)].map(([, title = ""]) =>
      title
        .toLowerCase()
        .replace(/[^\w -]/g, "")
        .replaceAll(" ", "-"),
    );
  for (const { file, text } of documents()) {
    const prose = text.replace(/^```.*?^```/gms, "").replace(/`[^`\n]*`/g, "");
    for (const [, link = ""] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(link)) continue;
      const [path = "", anchor] = link.split("#");
      const target = path === "" ? join(packageRoot, file) : join(packageRoot, dirname(file), path);
      t.ok(existsSync(target), `${file}: ${link}`);
      if (anchor && existsSync(target))
        t.ok(anchors(readFileSync(target, "utf8")).includes(anchor), `${file}: ${link}`);
    }
  }
});

t.test("the README's example runs", async (t) => {
  const code = codeBlocks().find(({ file }) => file === "README.md")?.code ?? "";
  t.match(node(["--input-type=module", "--eval", code]), { status: 0, stdout: /^Ca 3, P 2, O 8\n/, stderr: "" });
});

t.test("code of the docs has the types it says", async (t) => {
  const folder = join(packageRoot, "build", "docs-code");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  // What a block may take for granted; a block that loads an engine declares its own.
  const given = 'declare const engine: import("sdar-engine").Engine;\n';
  for (const [index, { file, line, code }] of codeBlocks().entries()) {
    const known = /\bconst engine\b|\busing engine\b/.test(code) ? "" : given;
    const importing = code.includes('from "sdar-engine"') ? "" : 'import { Engine, SdarError } from "sdar-engine";\n';
    writeFileSync(join(folder, `${index}.ts`), `// ${file}:${line}\n${importing}${known}${code}\nexport {};\n`);
  }
  const options = {
    extends: "../../tsconfig.json",
    compilerOptions: { noEmit: true, rootDir: "../..", noUnusedLocals: false },
    include: ["*.ts"],
    exclude: [],
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(options));
  t.match(node([join(packageRoot, "node_modules/typescript/bin/tsc"), "-p", folder]), { status: 0, stdout: "" });
});
