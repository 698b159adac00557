// Installs the packed package as its users do, and runs it: package managers, runtimes, compilers, bundlers.
//   npm run test:consumers [-- npm pnpm bun …]      names; all without
// Needs the prebuilt addon of this platform (npm run prebuilds) and a registry: tools come from it, into build/consumers/tools.
import { spawnSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isMain, root } from "./cmake.mjs";

const place = join(root, "build", "consumers");
const tools = join(place, "tools");
const sources = join(root, "test", "consumers");
const tarball = join(place, "sdar-engine.tgz");
const prebuilt = join(root, "prebuilds", `${process.platform}-${process.arch}`, "sdar-engine.node");

/** Binaries without install scripts, by the names they are installed under. */
const packages = {
  node22: `npm:node-linux-${process.arch}@22`,
  node24: `npm:node-linux-${process.arch}@24`,
  bun: `npm:@oven/bun-linux-${process.arch === "arm64" ? "aarch64" : "x64"}@1`,
  deno: `npm:@deno/linux-${process.arch}-glibc@2`,
  pnpm: "12",
  "@yarnpkg/cli-dist": "4",
};
const tool = (...path) => join(tools, "node_modules", ...path);
const node = process.execPath;
const bun = tool("bun", "bin", "bun");
const deno = tool("deno", "deno");

const smoke = ["smoke.mjs"];
const stress = ["stress.mjs"];
const runBoth = (...runtime) => [
  [...runtime, ...smoke],
  [...runtime, ...stress],
];
const typescript = { typescript: "^6", "@types/node": "^20" };
const installWith = {
  npm: ["npm", "install", "--no-audit", "--no-fund"],
  pnpm: [node, tool("pnpm", "bin", "pnpm.mjs"), "install"],
  yarn: [node, tool("@yarnpkg", "cli-dist", "bin", "yarn.js"), "install"],
  bun: [bun, "install"],
};

/** Each in a folder of its own: files of test/consumers, further packages, how it is installed, and what then must exit with 0. */
const consumers = {
  npm: {
    files: "runtimes",
    runs: [...runBoth(node), ["npx", "sdar", "generate", "31 x 7"], ["npx", "sdar", "doctor"]],
  },
  newcomer: {
    files: "newcomer",
    more: { fastify: "^5", "prom-client": "^15", openai: "^6" },
    runs: [[node, "main.mjs"]],
  },
  pnpm: { files: "runtimes", with: "pnpm", runs: [[node, ...smoke]] },
  yarn: {
    files: "runtimes",
    with: "yarn",
    runs: [[node, ...smoke]],
    settings: { ".yarnrc.yml": "nodeLinker: node-modules\n" },
  },
  node22: { files: "runtimes", runs: runBoth(tool("node22", "bin", "node")) },
  node24: { files: "runtimes", runs: runBoth(tool("node24", "bin", "node")) },
  bun: { files: "runtimes", with: "bun", runs: runBoth(bun) },
  deno: { files: "runtimes", runs: runBoth(deno, "run", "-A") },
  commonjs: { files: "commonjs", runs: [[tool("node22", "bin", "node"), "main.cjs"]] },
  node16: { files: "typescript", more: typescript, runs: [["npx", "tsc", "--module", "node16"]] },
  bundler: {
    files: "typescript",
    more: typescript,
    runs: [["npx", "tsc", "--module", "esnext", "--moduleResolution", "bundler"]],
  },
  esbuild: {
    files: "esbuild",
    more: { esbuild: "^0.28" },
    runs: [
      [
        "npx",
        "esbuild",
        "main.mjs",
        "--bundle",
        "--platform=node",
        "--format=esm",
        "--packages=external",
        "--outfile=out.mjs",
      ],
      [node, "out.mjs"],
    ],
  },
  vitest: { files: "vitest", more: { vitest: "^5" }, runs: [["npx", "vitest", "run"]] },
  next: {
    files: "next",
    more: { next: "^16", react: "^19", "react-dom": "^19" },
    runs: [["npx", "next", "build"]],
    check: nextAnswers,
  },
};

function run(command, cwd, env = {}) {
  const [file, ...args] = command;
  const result = spawnSync(file, args, { cwd, env: { ...process.env, ...env }, encoding: "utf8", timeout: 600_000 });
  if (result.status === 0) return result.stdout;
  throw new Error(`${command.join(" ")}: ${result.error ?? result.status}\n${result.stdout}\n${result.stderr}`);
}

/** What Next traced, without the project around it, answers a request. */
async function nextAnswers(folder) {
  const { spawn } = await import("node:child_process");
  const alone = join(place, "next-standalone");
  rmSync(alone, { recursive: true, force: true });
  cpSync(join(folder, ".next", "standalone"), alone, { recursive: true, verbatimSymlinks: true });
  const port = 20_000 + (process.pid % 20_000);
  const server = spawn(node, ["server.js"], {
    cwd: alone,
    env: { ...process.env, PORT: String(port), HOSTNAME: "127.0.0.1" },
  });
  try {
    const body = JSON.stringify({ messages: [{ role: "user", content: "31 x 7" }] });
    for (let tries = 0; ; tries++) {
      const answer = await fetch(`http://127.0.0.1:${port}/api/chat`, { method: "POST", body }).catch(() => undefined);
      const text = await answer?.text();
      if (text?.includes('"finishReason":"end"')) return;
      if (text !== undefined || tries > 100) throw new Error(`next answered: ${text}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  } finally {
    server.kill();
  }
}

/** Builds the tarball from what is there. */
function pack() {
  mkdirSync(tools, { recursive: true });
  const packed = run(["npm", "pack", "--json", "--pack-destination", place], root, { SDAR_SKIP_BUILD: "1" });
  const name = readdirSync(place).find((file) => /^sdar-engine-\d.*\.tgz$/.test(file));
  if (!name) throw new Error(packed);
  copyFileSync(join(place, name), tarball);
  rmSync(join(place, name));
}

/** False where there is no registry, so that nothing can be installed. */
function fetchTools() {
  writeFileSync(join(tools, "package.json"), JSON.stringify({ private: true, dependencies: packages }));
  try {
    run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], tools);
    return true;
  } catch (error) {
    if (!/ENOTFOUND|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN|ENETUNREACH/.test(error.message)) throw error;
    console.log(`  skipped: the registry does not answer\n${error.message}`);
    return false;
  }
}

async function consume(name) {
  const { files, more = {}, with: manager = "npm", runs, check, settings = {} } = consumers[name];
  const folder = join(place, name);
  rmSync(folder, { recursive: true, force: true });
  cpSync(join(sources, files), folder, { recursive: true });
  const dependencies = { "sdar-engine": `file:${tarball}`, ...more };
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({ name: `consumer-${name}`, private: true, type: "module", dependencies }),
  );
  // Yarn looks for the project above otherwise.
  for (const [file, text] of Object.entries({ "yarn.lock": "", ...settings })) {
    if (manager === "yarn") writeFileSync(join(folder, file), text);
  }
  const began = Date.now();
  run(installWith[manager], folder, { YARN_ENABLE_IMMUTABLE_INSTALLS: "false", CI: "" });
  const installed = Date.now();
  run(runs[0], folder);
  const first = Date.now();
  for (const command of runs.slice(1)) run(command, folder);
  await check?.(folder);
  const seconds = (from, to) => ((to - from) / 1000).toFixed(1);
  console.log(
    `  ${name}: installed in ${seconds(began, installed)} s, first run ${seconds(installed, first)} s, all ${seconds(began, Date.now())} s`,
  );
}

/** A clone without dev dependencies, as a service installs a fork; the addon's build has tests of its own. */
function cloneBuilds() {
  const folder = join(place, "clone");
  rmSync(folder, { recursive: true, force: true });
  run(["git", "clone", "-q", root, folder], place);
  run(["npm", "ci", "--omit=dev", "--no-audit", "--no-fund"], folder, { SDAR_SKIP_BUILD: "1" });
  if (!existsSync(join(folder, "dist", "http.js"))) throw new Error("npm ci --omit=dev left no dist/");
  // Tools that look for settings in folders below would find its ones.
  rmSync(folder, { recursive: true });
  console.log("  clone: npm ci --omit=dev");
}

/** Counts for scripts/test.mjs. */
export async function consumerTests(only = []) {
  if (!existsSync(prebuilt)) {
    console.log(`  skipped: there is no ${prebuilt}; npm run prebuilds makes it`);
    return { passed: 0, failed: 0 };
  }
  pack();
  if (!fetchTools()) return { passed: 0, failed: 0 };
  console.log(`  packed: ${(statSync(tarball).size / 1e6).toFixed(1)} MB`);
  const counts = { passed: 0, failed: 0 };
  const names = [...Object.keys(consumers), ...(existsSync(join(root, ".git")) ? ["clone"] : [])];
  for (const name of names.filter((each) => only.length === 0 || only.includes(each))) {
    try {
      await (name === "clone" ? cloneBuilds() : consume(name));
      counts.passed++;
    } catch (error) {
      console.log(`  ${name}: FAILED\n${error.message}`);
      counts.failed++;
    }
  }
  return counts;
}

if (isMain(import.meta.url)) {
  const { passed, failed } = await consumerTests(process.argv.slice(2));
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}
