// Runs what people copy: the examples, the README's code, and the compiler over all code of the docs.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import t from "tap";
import { packageRoot } from "../lib/checkpoint.js";

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

t.test("batch answers line by line, in order", async (t) => {
  const prompts = ["Count the atoms in Ca3(PO4)2", 5, "Sort: 61 75 92"];
  const lines = [...prompts.map((prompt, id) => JSON.stringify({ id, prompt })), "no JSON", "", "null"];
  const { status, stdout } = node([example("batch.mjs")], lines.join("\n"));
  t.equal(status, 0);
  const answers = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  t.match(answers, [
    { id: 0, answer: "Ca 3, P 2, O 8", finishReason: "end" },
    { id: 1, error: /^messages\[0\]\.content/ },
    { id: 2, answer: "61 75 92" },
    { line: "no JSON", error: /JSON/ },
    { error: String },
  ]);
  t.equal(answers.length, 5);
});

t.test("http streams, says what is wrong, aborts on hang-up and drains on SIGTERM", async (t) => {
  const child = spawn(process.execPath, [example("http.mjs")], { env: { ...process.env, PORT: "0" } });
  t.teardown(() => child.kill("SIGKILL"));
  child.stderr.pipe(process.stderr);
  const closed = once(child, "close");
  const log = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const url = (await log.next()).value as string;
  t.match(url, /^http:\/\/localhost:\d+$/);

  const ask = (body: string) => fetch(url, { method: "POST", body });
  const whole = await ask("Count the atoms in Ca3(PO4)2");
  t.equal(whole.status, 200);
  t.equal(await whole.text(), "Ca 3, P 2, O 8");
  t.equal((await log.next()).value, "request 1: end");

  const refused = await ask("x ".repeat(2000));
  t.equal(refused.status, 413);
  t.match(await refused.text(), /^PROMPT_TOO_LONG: /);

  // The shipped model answers this with some 300 tokens.
  const client = request(url, { method: "POST" });
  client.on("error", () => {}); // of the hang-up
  client.end(`Extract JSON: ${"x ".repeat(100)}`);
  const [response] = await once(client, "response");
  await once(response, "data");
  client.destroy();
  t.match((await log.next()).value, /^request \d+: abort$/);

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
