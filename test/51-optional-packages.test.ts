// Where only the dependencies are installed: what needs more says which package, and how to get it; the rest works.
import { spawnSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import t from "tap";
import { findAddon } from "../lib/addon-file.js";
import { packageRoot } from "../lib/checkpoint.js";

t.test("without the optional packages", async (t) => {
  // Outside the repository, whose packages would be found.
  const root = realpathSync(mkdtempSync(join(tmpdir(), "sdar-bare-")));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  writeFileSync(join(root, "jobs.jsonl"), '{"prompt":"31 x 7"}\n');
  const { dependencies } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));
  for (const name of ["dist", "package.json"]) cpSync(join(packageRoot, name), join(root, name), { recursive: true });
  for (const name of ["models", ...Object.keys(dependencies).map((name) => join("node_modules", name))]) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    symlinkSync(join(packageRoot, name), join(root, name));
  }
  mkdirSync(join(root, "build", "Release"), { recursive: true });
  cpSync(findAddon(), join(root, "build", "Release", "sdar_node.node"));
  const run = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, args, {
      cwd: root,
      encoding: "utf8",
      timeout: 60_000,
    });
    return { status, stdout, stderr };
  };
  const main = join(root, "dist", "cli", "main.js");
  const missing = (packages: string) => ({ status: 1, stderr: new RegExp(`${packages}.*\\n$`) });
  t.match(run(main, "serve", "--port", "0"), missing("needs the package fastify, .*: npm install fastify prom-client"));
  t.match(run(main, "pull", "a/b"), missing("npm install @huggingface/hub"));
  t.match(run(main, "enqueue", "jobs.jsonl", "--redis", "/none"), missing("npm install bullmq ioredis"));
  t.match(run(main, "worker", "--results", "out.jsonl", "--redis", "/none"), missing("npm install bullmq ioredis"));
  t.match(run(main, "generate", "31 x 7"), { status: 0, stderr: /\d tokens/ });

  // Adapters are imported by who has their packages: the import itself names what is not there.
  for (const [path, name] of [
    ["ai-sdk", "@ai-sdk/provider"],
    ["langchain", "@langchain/core"],
  ] as const) {
    const file = join(root, "import.mjs");
    writeFileSync(file, `import "sdar-engine/${path}";`);
    const { status, stderr } = run(file);
    t.equal(status, 1);
    t.match(stderr, `'${name}'`);
  }
});
