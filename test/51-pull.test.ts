// What sdar pull does with a hub, and with one that does all it should not.
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { shippedModelPath } from "../lib/checkpoint.js";
import { Engine } from "../lib/engine.js";
import { type PullOptions, pullModel } from "../lib/hub.js";
import { commit, Hub } from "./hub.js";
import { sdar } from "./sdar.js";

const tensors = "model.safetensors";
const quick = { retries: 2, retryMs: 1, stallMs: 30_000 };

/** A hub, a cache of its own, and where the cache has the model. */
async function setUp(t: Test, folder = "test/golden/tiny-dense") {
  const hub = await new Hub(folder).start();
  t.teardown(() => hub.stop());
  const cache = t.testdir({});
  process.env.HF_HUB_CACHE = cache;
  t.teardown(() => delete process.env.HF_HUB_CACHE);
  const model = join(cache, "models--org--name");
  const pull = (options: PullOptions = {}) => pullModel("org/name", { endpoint: hub.endpoint, ...quick, ...options });
  const whole = () => readFileSync(join(model, "snapshots", commit, tensors)).equals(hub.files.get(tensors) as Buffer);
  const blobs = () => (existsSync(join(model, "blobs")) ? readdirSync(join(model, "blobs")) : []);
  return { hub, cache, model, pull, whole, blobs, size: (hub.files.get(tensors) as Buffer).length };
}

/** Half of the file, and then the connection is cut. */
const breakOff = (hub: Hub, times: number) => {
  let left = times;
  hub.disturbStore = ({ headers, url }, response) => {
    if (left-- <= 0) return false;
    const bytes = hub.files.get(String(url).slice(1)) as Buffer;
    const from = Number(/\d+/.exec(headers.range ?? "0")?.[0]);
    const part = bytes.subarray(from, from + Math.ceil((bytes.length - from) / 2));
    response.writeHead(from > 0 ? 206 : 200, {
      "content-length": bytes.length - from,
      ...(from > 0 && { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
    });
    response.write(part, () => setTimeout(() => response.destroy(), 50));
    return true;
  };
};

t.test("a checkpoint lands in the cache, where Engine.load finds it", async (t) => {
  const { hub, cache, model, pull } = await setUp(t, shippedModelPath());
  hub.files.set("pytorch_model.bin", Buffer.from("x"));
  hub.files.set("model.pt", Buffer.from("x"));
  const plan = await pull({ dryRun: true });
  t.equal(plan.missing, plan.bytes);
  t.same(readdirSync(cache), [], "a dry run leaves nothing");

  const env = { ...process.env, HF_ENDPOINT: hub.endpoint, HF_TOKEN: "secret", HF_HUB_CACHE: cache };
  const { status, stdout, stderr } = await sdar(["pull", "org/name"], { env });
  t.match({ status, stdout, stderr }, { status: 0, stdout: `${plan.folder}\n`, stderr: "" });
  t.equal(plan.folder, join(model, "snapshots", commit));
  t.same(readdirSync(plan.folder).sort(), readdirSync(shippedModelPath()).sort(), "no other formats of weights");
  t.equal(readFileSync(join(model, "refs", "main"), "utf8"), commit);
  const tokens = (wanted: string) =>
    new Set(
      hub.asked
        .filter(({ host }) => host === wanted)
        .slice(2)
        .map(({ token }) => token),
    );
  t.same([...tokens("hub")], ["Bearer secret"]);
  t.notOk(
    hub.asked.some(({ host, token }) => host === "store" && token !== undefined),
    "the token is the hub's alone",
  );

  const prompt = { messages: [{ role: "user", content: "1 + 1" }], maxTokens: 8 };
  await using pulled = await Engine.load("org/name");
  await using shipped = await Engine.load("sdar-nano");
  t.equal(await pulled.generate(prompt).text(), await shipped.generate(prompt).text());

  const before = hub.asked.length;
  t.match(await pull(), { missing: 0 });
  t.equal(hub.asked.length, before + 2, "nothing is fetched again");
});

t.test("what breaks off goes on, in the same run and in the next one", async (t) => {
  const { hub, pull, whole, blobs, model, size } = await setUp(t);
  breakOff(hub, 1);
  await pull();
  t.ok(whole());
  t.same(hub.ranges(), [undefined, `bytes=${Math.ceil(size / 2)}-`]);

  const other = await setUp(t);
  breakOff(other.hub, 1);
  await t.rejects(other.pull({ retries: 0 }), {
    code: "DOWNLOAD_FAILED",
    message: /model\.safetensors broke off after \d+ of/,
  });
  t.ok(other.blobs().some((name) => name.endsWith(".incomplete")));
  t.notOk(existsSync(join(other.model, "refs")), "it is not found as long as it is not whole");
  await t.rejects(Engine.load("org/name"), { code: "MODEL_NOT_FOUND" });
  t.match(await other.pull({ dryRun: true }), { missing: Math.floor(size / 2) });
  await other.pull();
  t.ok(other.whole());
  t.same(other.hub.ranges()[1], `bytes=${Math.ceil(size / 2)}-`);
  t.notOk([...blobs(), ...other.blobs()].some((name) => name.endsWith(".incomplete")));
  t.ok(statSync(join(model, "refs", "main")).isFile());
});

t.test("a host that does not go on where it is asked to begins anew", async (t) => {
  for (const wrong of ["whole", "elsewhere", "416"]) {
    const { hub, pull, whole } = await setUp(t);
    breakOff(hub, 1);
    await t.rejects(pull({ retries: 0 }), { code: "DOWNLOAD_FAILED" });
    hub.disturbStore = ({ headers }, response) => {
      const bytes = hub.files.get(tensors) as Buffer;
      if (headers.range === undefined) return false;
      if (wrong === "whole") response.writeHead(200).end(bytes);
      else if (wrong === "416") response.writeHead(416).end();
      else
        response
          .writeHead(206, { "content-range": `bytes 1-${bytes.length - 1}/${bytes.length}` })
          .end(bytes.subarray(1));
      return true;
    };
    await pull();
    t.ok(whole(), wrong);
  }
});

t.test("what a hub refuses is told, and what may pass is tried again", async (t) => {
  const { hub, pull, blobs, whole } = await setUp(t);
  let answers: number[] = [];
  hub.disturb = (_, response) => {
    const status = answers.shift();
    if (status === undefined) return false;
    response.writeHead(status, { "retry-after": "0" }).end("no");
    return true;
  };
  const refused = async (
    status: number,
    times: number,
    expected: { code: string; message: RegExp },
    options: PullOptions = {},
  ) => {
    answers = Array(times).fill(status);
    await t.rejects(pull(options), expected, String(status));
    answers = [];
  };
  await refused(401, 1, { code: "MODEL_NOT_FOUND", message: /answers 401 .* set HF_TOKEN/ });
  await refused(
    403,
    1,
    { code: "MODEL_NOT_FOUND", message: /answers 403 .* HF_TOKEN does not open it/ },
    { token: "x" },
  );
  await refused(404, 1, { code: "MODEL_NOT_FOUND", message: /there is no such model or revision/ });
  await refused(418, 1, { code: "DOWNLOAD_FAILED", message: /answers 418/ });
  await refused(429, 3, { code: "DOWNLOAD_FAILED", message: /answers 429/ });
  await refused(500, 3, { code: "DOWNLOAD_FAILED", message: /answers 500/ });
  t.same(blobs(), []);
  answers = [429, 500];
  await pull();
  t.ok(whole(), "after two that passed");

  for (const id of ["name", "../x/y", "a/b/c", "a/..b"]) await t.rejects(pullModel(id), { code: "INVALID_OPTION" }, id);
  await t.rejects(pull({ revision: "../main" }), { code: "INVALID_OPTION" });
  await t.rejects(pull({ endpoint: "http://127.0.0.1:1" }), { message: /127\.0\.0\.1:1 cannot be reached/ });
  hub.disturb = (request, response) => {
    response.writeHead(302, { location: String(request.url) }).end();
    return true;
  };
  await t.rejects(pull(), { message: /leads in circles/ });
  hub.disturb = (_, response) => {
    response.writeHead(200).end("<html>");
    return true;
  };
  await t.rejects(pull(), { code: "DOWNLOAD_FAILED", message: /does not answer as a hub does/ });
});

t.test("lies about sizes and checksums leave nothing under a final name", async (t) => {
  const sha = "a".repeat(64);
  for (const [lie, message] of [
    [{ oid: sha }, /model\.safetensors has the wrong checksum, \w+ in the place of a+; it was removed/],
    [{ size: 1000 }, /model\.safetensors is longer than the 1000 bytes/],
    [{ size: 10_000_000 }, /model\.safetensors ends after \d+ of the 10000000 bytes|does not go on/],
    [{ size: -1 }, /the hub's list has no size and checksum for model\.safetensors/],
    [{ oid: "../../../x" }, /the hub's list has no size and checksum/],
    [{ size: 2 ** 52 }, /there is no room/],
  ] as const) {
    const { hub, pull, blobs, model } = await setUp(t);
    hub.listed[tensors] = lie;
    await t.rejects(pull({ retries: 0 }), { message }, String(message));
    t.notOk(blobs().includes(sha));
    t.notOk(existsSync(join(model, "refs")));
  }
  const { hub, pull, model, whole } = await setUp(t);
  hub.listed["config.json"] = { oid: "b".repeat(40) };
  await t.rejects(pull(), { message: /config\.json has the wrong checksum/ });
  delete hub.listed["config.json"];
  // Half a file of other contents is found out, and the next run is right.
  const oid = "incomplete";
  mkdirSync(join(model, "blobs"), { recursive: true });
  breakOff(hub, 1);
  await t.rejects(pull({ retries: 0 }));
  const part = readdirSync(join(model, "blobs")).find((name) => name.endsWith(oid)) as string;
  writeFileSync(join(model, "blobs", part), "y".repeat(100));
  await t.rejects(pull(), { message: /wrong checksum/ });
  await pull();
  t.ok(whole());
  hub.files.delete(tensors);
  await t.rejects(pull(), { message: /neither model\.safetensors nor model\.safetensors\.index\.json/ });
});

t.test("a host that sends nothing is given up, and an abort ends at once", async (t) => {
  const { hub, pull, blobs } = await setUp(t);
  hub.disturbStore = (_, response) => {
    response.writeHead(200);
    response.write("x");
    return true;
  };
  await t.rejects(pull({ retries: 0, stallMs: 100 }), { message: /model\.safetensors: nothing came for 0\.1 s/ });
  const controller = new AbortController();
  const pulled = pull({ signal: controller.signal, onProgress: ({ file }) => file === tensors && controller.abort() });
  await t.rejects(pulled, { name: "AbortError" });
  hub.disturbStore = () => false;
  t.notOk(blobs().includes(tensors));
});
