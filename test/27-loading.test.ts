// Loading while things go wrong: processes killed and stopped at any moment, changed files, homes and disks that are not
// there. After each the model loads, with its own tokens, and nothing is left over.
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import t from "tap";
import { packageRoot, shippedModelPath } from "../lib/checkpoint.js";
import { Engine, type LoadOptions } from "../lib/index.js";
import { eventually } from "./eventually.js";
import { sdar } from "./sdar.js";

const scratch = mkdtempSync(join(tmpdir(), "sdar-loading-"));
t.teardown(() => rmSync(scratch, { recursive: true, force: true }));

interface Tensor {
  name: string;
  dtype: string;
  shape: number[];
  data: Buffer;
}

/** A copy of the shipped model with its tensors changed. */
function copyModel(name: string, change: (tensors: Tensor[]) => Tensor[] = (all) => all): string {
  const folder = join(scratch, name);
  if (readdirSync(scratch).includes(name) === false) cpSync(shippedModelPath(), folder, { recursive: true });
  const file = join(folder, "model.safetensors");
  const bytes = readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE());
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> = JSON.parse(
    bytes.toString("utf8", 8, start),
  );
  const tensors = Object.entries(header)
    .filter(([tensor]) => tensor !== "__metadata__")
    .map(
      ([
        tensor,
        {
          dtype,
          shape,
          data_offsets: [from, to],
        },
      ]) => ({
        ...{ name: tensor, dtype, shape },
        data: Buffer.from(bytes.subarray(start + from, start + to)),
      }),
    );
  let at = 0;
  const after = change(tensors);
  const entries = after.map(({ name: tensor, dtype, shape, data }) => {
    at += data.length;
    return [tensor, { dtype, shape, data_offsets: [at - data.length, at] }];
  });
  const text = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(file, Buffer.concat([length, text, ...after.map(({ data }) => data)]));
  return folder;
}

/** Of a vocabulary so wide that its packed weights are worth a file. */
const rows = 140_000;
const wide = copyModel("wide", (tensors) =>
  tensors.map((tensor) => {
    if (tensor.name !== "model.embed_tokens.weight") return tensor;
    const data = Buffer.alloc(rows * 512);
    tensor.data.copy(data);
    return { ...tensor, shape: [rows, 256], data };
  }),
);
const configFile = join(wide, "config.json");
writeFileSync(configFile, JSON.stringify({ ...JSON.parse(readFileSync(configFile, "utf8")), vocab_size: rows }));

const small = { kvCache: { tokens: 512 } } satisfies LoadOptions;
const request = { prompt: "Count the atoms in H2O", maxTokens: 16, ignoreEos: true };
async function tokens(folder: string, weightCache: string | false): Promise<string> {
  await using engine = await Engine.load(folder, { ...small, weightCache });
  return (await engine.generate(request).result()).tokens.map(({ id }) => id).join(" ");
}

let folders = 0;
function newCache(): string {
  const folder = join(scratch, `cache-${folders++}`);
  mkdirSync(folder);
  return folder;
}
function newCacheOf(mode: number): string {
  const folder = newCache();
  chmodSync(folder, mode);
  return folder;
}
const rests = (folder: string) => readdirSync(folder).filter((name) => !/^[0-9a-f-]{33}\.sdarpack$/.test(name));

/** A process that loads the wide model, then runs `then`. */
function loader(weightCache: string, then = "", env = process.env, ids = {}) {
  const library = JSON.stringify(pathToFileURL(join(packageRoot, "dist", "index.js")).href);
  const options = JSON.stringify({ ...small, weightCache });
  const script = `import { Engine } from ${library};
    const engine = await Engine.load(${JSON.stringify(wide)}, ${options}); console.log("loaded"); ${then}`;
  return spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: "pipe", env, ...ids });
}

t.test("a load that is killed at any moment leaves nothing that lasts", async (t) => {
  const expected = await tokens(wide, false);
  const rounds = process.env.SDAR_TEST_QUICK ? 3 : 30;
  for (let i = 0; i < rounds; i++) {
    const cache = newCache();
    const child = loader(cache, "await new Promise((r) => setTimeout(r, 1000));");
    // From before the load to after the file is written.
    await (i % 3 === 0 ? sleep(150 + 20 * i) : once(child.stdout, "data").then(() => sleep(10 * i)));
    child.kill("SIGKILL");
    await once(child, "close");
    t.equal(await tokens(wide, cache), expected);
    t.equal(await tokens(wide, cache), expected);
    // On a slow disk a file is written for some time after its engine was disposed of.
    await eventually(t, () => ({ files: readdirSync(cache).length, rests: rests(cache).length }), {
      files: 1,
      rests: 0,
    });
  }
});

t.test("changed weights are seen under equal sizes and times", async (t) => {
  const cache = newCache();
  const file = join(wide, "model.safetensors");
  utimesSync(file, 1, 1);
  const old = await tokens(wide, cache);
  const flip = (tensors: Tensor[]) => {
    const { data } = tensors.find(({ name }) => name === "model.layers.3.input_layernorm.weight") as Tensor;
    for (let i = 1; i < data.length; i += 2) data.writeUInt8(data.readUInt8(i) ^ 0x80, i);
    return tensors;
  };
  copyModel("wide", flip);
  utimesSync(file, 1, 1);
  const [changed, fresh] = [await tokens(wide, cache), await tokens(wide, false)];
  t.not(changed, old);
  t.equal(changed, fresh);
  copyModel("wide", flip);
  utimesSync(file, 1, 1);
  t.equal(await tokens(wide, cache), old);
});

t.test("process.exit and Worker.terminate end a load, and what writes its file", async (t) => {
  for (const [when, then] of [
    ["while the file is written", "process.exit(7);"],
    ["while it loads", ""],
  ] as const) {
    const cache = newCache();
    const child = loader(cache, then);
    if (then === "") {
      await sleep(200);
      child.kill("SIGINT");
    }
    await once(child, "close");
    t.same(rests(cache), [], when);
  }
  const cache = newCache();
  const worker = new Worker(
    `const { Engine } = require(${JSON.stringify(join(packageRoot, "dist", "index.js"))});
     require("node:worker_threads").parentPort.postMessage("begun");
     Engine.load(${JSON.stringify(wide)}, ${JSON.stringify({ ...small, weightCache: cache })});`,
    { eval: true },
  );
  await once(worker, "message");
  await sleep(20);
  await worker.terminate();
  t.same(rests(cache), [], "a worker");
});

t.test("an AbortSignal ends a load as ABORTED, whatever happens to the files", async (t) => {
  const gone = join(scratch, "gone");
  cpSync(wide, gone, { recursive: true });
  for (const delay of [0, 5, 20, 60]) {
    const cache = newCache();
    const controller = new AbortController();
    const loading = Engine.load(gone, { ...small, weights: "f32", weightCache: cache, signal: controller.signal });
    setTimeout(() => {
      if (delay === 60) rmSync(gone, { recursive: true });
      controller.abort();
    }, delay);
    const outcome = await loading.then(
      (engine) => engine.dispose().then(() => "loaded"),
      ({ code }) => code,
    );
    t.ok(outcome === "ABORTED" || outcome === "loaded", outcome);
    // A disk that does not answer within 50 ms is not waited for.
    await eventually(t, () => rests(cache).length, 0);
  }
});

t.test("a process that ends by itself stays for the file that is written after the answer", async (t) => {
  const cache = newCache();
  const child = loader(cache);
  const closed = once(child, "close");
  let text = "";
  for await (const part of child.stdout) text += part;
  await closed;
  t.equal(text, "loaded\n");
  t.same([readdirSync(cache).length, rests(cache)], [1, []]);
  t.match(await sdar(["cache", "ls", "--folder", cache]), { status: 0, stdout: /MB.*wide\n.*in 1 file/ });
  t.match(await sdar(["cache", "clear", "--folder", cache]), { status: 0, stdout: /removed 1 file/ });
  t.same(readdirSync(cache), []);
});

t.test("no home, and a folder that cannot be written", async (t) => {
  const { HOME, XDG_CACHE_HOME, SDAR_CACHE_DIR, ...env } = process.env;
  const load = `import { Engine } from ${JSON.stringify(pathToFileURL(join(packageRoot, "dist", "index.js")).href)};
    await (await Engine.load("sdar-nano")).dispose(); console.log("ok");
    await Engine.load("org/model").catch((e) => console.log(e.code));`;
  // An identity without an entry in passwd takes a superuser to become.
  for (const ids of process.getuid?.() === 0 ? [{}, { uid: 54321, gid: 54321 }] : [{}]) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", load], { env: { ...env, HOME: "" }, ...ids });
    let text = "";
    for await (const part of child.stdout) text += part;
    t.equal(text, "ok\nMODEL_NOT_FOUND\n");
  }
  const file = join(scratch, "file");
  writeFileSync(file, "");
  const expected = await tokens(wide, false);
  for (const cache of [file, join(file, "deeper"), "/proc/none"]) t.equal(await tokens(wide, cache), expected);
});

t.test("a cache folder that may be read alone is used as far as it goes", async (t) => {
  const cache = newCache();
  const expected = await tokens(wide, cache);
  // A superuser writes whatever the modes say, so another identity loads.
  const ids = process.getuid?.() === 0 ? { uid: 54321, gid: 54321 } : {};
  for (const folder of [scratch, wide, cache]) chmodSync(folder, 0o555);
  t.teardown(() => chmodSync(scratch, 0o755));
  for (const folder of [cache, newCacheOf(0o555)]) {
    const before = readdirSync(folder);
    const then = `const { tokens } = await engine.generate(${JSON.stringify(request)}).result();
      console.log(tokens.map(({ id }) => id).join(" ")); await engine.dispose();`;
    const child = loader(folder, then, { ...process.env, HOME: "" }, ids);
    let text = "";
    for await (const part of child.stdout) text += part;
    t.equal(text, `loaded\n${expected}\n`);
    t.same(readdirSync(folder), before);
  }
});

t.test("several loads at once share one file, and let files be read meanwhile", async (t) => {
  const cache = newCache();
  const expected = await tokens(wide, false);
  const loads = Promise.all(Array.from({ length: 6 }, () => tokens(wide, cache)));
  let read = 0;
  for (let done = false; !done; ) {
    const first = await Promise.race([loads.then(() => "loads"), readFile(configFile).then(() => "file")]);
    done = first === "loads";
    if (!done) read++;
  }
  t.same(new Set(await loads), new Set([expected]));
  t.ok(read > 10, `${read} files were read while six models were loaded`);
  await eventually(t, () => ({ files: readdirSync(cache).length, rests: rests(cache).length }), { files: 1, rests: 0 });
});

t.test("tensors that are not part of the model are told to log", async (t) => {
  const folder = copyModel("extra", (all) => [
    ...all,
    { name: "model.position_ids", dtype: "I64", shape: [4], data: Buffer.alloc(32) },
  ]);
  const told: string[] = [];
  const engine = await Engine.load(folder, { weightCache: false, log: (level, text) => told.push(`${level} ${text}`) });
  await engine.dispose();
  t.match(told, [/^warn .*tensor model\.position_ids is not part of the model/, /^info/]);
});

t.test("an overflow inside the model is an error of the request", async (t) => {
  const folder = copyModel("overflow", (all) => {
    const weight = all.find(({ name }) => name === "model.layers.3.mlp.down_proj.weight") as Tensor;
    weight.data.writeUInt16LE(0x7f00, 10);
    return all;
  });
  for (const weights of ["f32", "bf16", "int8", "int4"] as const)
    for (const isa of [undefined, "portable"]) {
      await using engine = await Engine.load(folder, { weights, weightCache: false, ...(isa ? { isa } : {}) });
      await t.rejects(engine.generate(request).result(), { code: "NUMERIC_ERROR" }, `${weights} ${isa ?? ""}`);
    }
});
