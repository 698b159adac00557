// examples/deploy: nginx takes its configuration, keeps sessions together, passes over what is gone; the YAML says what it should.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Agent, createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import t, { type Test } from "tap";
import { parseAllDocuments } from "yaml";
import { packageRoot, shippedModelPath } from "../lib/checkpoint.js";
import { Engine } from "../lib/index.js";
import { main } from "./sdar.js";

const folder = join(packageRoot, "examples", "deploy");
const text = (name: string) => readFileSync(join(folder, name), "utf8");
const skip = spawnSync("nginx", ["-v"]).error ? "nginx is not installed (apt-get install nginx)" : false;
const served = existsSync(join(packageRoot, "dist", "cli", "serve.js"));

/** A folder for nginx with the configuration as it is, but for the replicas and a Unix socket to listen on. */
function prefix(t: Test, ports: number[]) {
  const path = mkdtempSync(join(tmpdir(), "sdar-nginx-"));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  mkdirSync(join(path, "temp"));
  const socket = join(path, "nginx.sock");
  const conf = text("nginx.conf").replace("listen 8080;", `listen unix:${socket};`);
  writeFileSync(join(path, "nginx.conf"), conf);
  let at = 0;
  const upstreams = text("upstreams.conf").replace(/127\.0\.0\.1:\d+/g, () => `127.0.0.1:${ports[at++]}`);
  writeFileSync(join(path, "upstreams.conf"), upstreams);
  return { path, socket };
}

t.test("nginx takes the configuration", { skip }, async (t) => {
  const { path } = prefix(t, [8001, 8002]);
  for (const name of ["nginx.conf", "upstreams.conf"]) copyFileSync(join(folder, name), join(path, name));
  const { status, stderr } = spawnSync("nginx", ["-p", path, "-c", "nginx.conf", "-t"], { encoding: "utf8" });
  t.equal(status, 0, stderr);
});

interface Replica {
  port: number;
  end(): Promise<unknown>;
}

async function endProcess(child: ChildProcess, signal: NodeJS.Signals) {
  const closed = once(child, "close");
  if (child.exitCode === null && child.signalCode === null) child.kill(signal);
  else return;
  await closed;
}

async function engineReplica(t: Test): Promise<Replica> {
  const args = [main, "serve", "--port", "0", "--model", `chat=${shippedModelPath()}`, "--threads", "1"];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  t.teardown(() => child.kill("SIGKILL"));
  const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  return { port: Number(/:(\d+)\D*$/.exec(line)?.[1]), end: () => endProcess(child, "SIGKILL") };
}

/** Streams two events, the second when the client has had the first. */
async function standIn(t: Test): Promise<Replica> {
  const server = createServer(async (incoming, response) => {
    for await (const _ of incoming);
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write('data: {"choices":[]}\n\n');
    await sleep(100);
    response.end("data: [DONE]\n\n");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const end = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  t.teardown(end);
  return { port: (server.address() as AddressInfo).port, end };
}

/** nginx in front of replicas. */
async function startNginx(t: Test, replicas: Replica[]) {
  const { path, socket } = prefix(
    t,
    replicas.map(({ port }) => port),
  );
  const args = ["-p", path, "-c", "nginx.conf", "-g", "daemon off; user root;"];
  const child = spawn("nginx", process.getuid?.() === 0 ? args : [...args.slice(0, -1), "daemon off;"], {
    stdio: "ignore",
  });
  t.teardown(() => endProcess(child, "SIGTERM"));
  while (!existsSync(socket) && child.exitCode === null) await sleep(10);
  return { path, socket };
}

t.test("sessions stay on a replica, and go on when it is gone", { skip }, async (t) => {
  const replicas = await Promise.all([0, 1].map(() => (served ? engineReplica(t) : standIn(t))));
  const { path, socket } = await startNginx(t, replicas);

  const ask = async (session: string, path = "/v1/chat/completions") => {
    const headers = { "content-type": "application/json", ...(session && { "x-session": session }) };
    const sent = request({ socketPath: socket, method: "POST", path, headers });
    const messages = [{ role: "user", content: "31 x 7" }];
    sent.end(JSON.stringify({ model: "chat", stream: true, max_tokens: 1, messages }));
    const [response] = await once(sent, "response");
    let parts = 0;
    let body = "";
    for await (const part of response) {
      parts++;
      body += part;
    }
    return { status: response.statusCode as number, parts, body };
  };
  const logged = () =>
    readFileSync(join(path, "access.log"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
  const replicaOf = (session: string) =>
    new Set(
      logged()
        .filter((line) => line.session === session)
        .map((line) => line.upstream as string),
    );

  // So many that the chance that all hash to one replica is none.
  const sessions = Array.from({ length: 16 }, (_, i) => `session-${i}`);
  const askAll = () => Promise.all(sessions.map((session) => ask(session)));
  for (const { status, body } of [...(await askAll()), ...(await askAll())]) {
    t.equal(status, 200);
    t.match(body, /data: \[DONE\]\n\n$/);
  }
  const places = sessions.map((session) => [...replicaOf(session)]);
  t.ok(
    places.every((each) => each.length === 1),
    "each session has met one replica",
  );
  t.equal(new Set(places.flat()).size, 2, "both have sessions");
  if (!served) t.ok((await ask("a")).parts > 1, "events come one by one");
  t.equal((await ask("a", "/metrics")).status, 404);

  const gone = `127.0.0.1:${replicas[0]?.port}`;
  await replicas[0]?.end();
  for (const { status } of await askAll()) t.equal(status, 200, "another replica answers");
  for (const [i, session] of sessions.entries()) {
    const before = places[i]?.[0];
    const last = logged()
      .filter((line) => line.session === session)
      .at(-1)?.upstream as string;
    if (before !== gone) t.equal(last, before, "who was elsewhere stays");
    else t.not(last.split(", ").at(-1), gone);
  }
});

t.test("a replica is killed under 2000 requests: each is answered once, with the right text", { skip }, async (t) => {
  if (!served) return t.pass("dist/ was not built");
  const replicas = await Promise.all([engineReplica(t), engineReplica(t)]);
  const { socket } = await startNginx(t, replicas);
  const prompts = Array.from({ length: 40 }, (_, i) => `${100 + 7 * i} + ${31 * i}`);
  const alone = await Engine.load("sdar-nano", { threads: 1 });
  t.teardown(() => alone.dispose());
  const texts = await Promise.all(
    prompts.map((content) => alone.generate({ messages: [{ role: "user", content }], maxTokens: 8 }).text()),
  );

  const agent = new Agent({ keepAlive: true });
  t.teardown(() => agent.destroy());
  const path = "/v1/chat/completions";
  /** Rejects where the answer is not whole. */
  const ask = async (i: number): Promise<string> => {
    const headers = { "content-type": "application/json", "x-session": `session-${i}` };
    const sent = request({ socketPath: socket, agent, method: "POST", path, headers });
    const messages = [{ role: "user", content: prompts[i % prompts.length] }];
    sent.end(JSON.stringify({ model: "chat", max_tokens: 8, messages }));
    const [response] = await once(sent, "response");
    let body = "";
    for await (const part of response) body += part;
    if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`);
    return JSON.parse(body).choices[0].message.content;
  };

  const count = 2000;
  const answers: (string | undefined)[] = [];
  let answered = 0;
  let killed: Promise<unknown> | undefined;
  let next = 0;
  const client = async () => {
    while (next < count) {
      const i = next++;
      for (let tries = 0; answers[i] === undefined && tries < 100; tries++) {
        answers[i] = await ask(i).catch(() => sleep(50));
      }
      if (++answered === count / 4) killed = replicas[0]?.end();
    }
  };
  await Promise.all(Array.from({ length: 32 }, client));
  t.ok(killed, "it was killed in the middle");
  await killed;
  t.equal(answered, count);
  const wrong = answers.filter((text, i) => text !== texts[i % texts.length]);
  t.same(wrong, [], "none is lost, none is another's");
});

t.test("what Kubernetes and Prometheus are given", (t) => {
  const all = parseAllDocuments(text("kubernetes.yaml"));
  t.same(
    all.flatMap(({ errors }) => errors),
    [],
  );
  const objects = all.map((document) => document.toJS());
  const find = (kind: string, name: string) => objects.find((o) => o.kind === kind && o.metadata.name === name);
  t.equal(objects.length, 5);
  const pod = find("StatefulSet", "sdar").spec.template.spec;
  const [container] = pod.containers;
  const seconds = (probe: { periodSeconds: number; failureThreshold: number }) =>
    probe.periodSeconds * probe.failureThreshold;
  t.match(container, {
    startupProbe: { httpGet: { path: "/ready", port: "http" } },
    readinessProbe: { httpGet: { path: "/ready" } },
    livenessProbe: { httpGet: { path: "/health" } },
    resources: { limits: { cpu: /^\d+$/, memory: /Gi$/ } },
  });
  t.ok(seconds(container.startupProbe) >= 120, "a large model may load");
  const { command } = container;
  const grace = Number(command[command.indexOf("--grace") + 1]) / 1000;
  const wait = Number(container.lifecycle.preStop.exec.command[1]);
  t.ok(pod.terminationGracePeriodSeconds > grace + wait, "a drain is not cut short");
  t.ok(command.includes("--host") && command.includes("0.0.0.0"), "probes reach it");
  const mounts = container.volumeMounts.map(({ name }: { name: string }) => name).sort();
  t.same(mounts, pod.volumes.map(({ name }: { name: string }) => name).sort());
  t.match(find("Service", "sdar").spec, { clusterIP: "None", publishNotReadyAddresses: true });
  const { replicas } = find("StatefulSet", "sdar").spec;
  const named = [...text("upstreams-kubernetes.conf").matchAll(/server sdar-(\d+)\.sdar:8000/g)].map(([, n]) =>
    Number(n),
  );
  t.same(
    named,
    Array.from({ length: replicas }, (_, i) => i),
  );
  for (const { kind, spec } of objects)
    if (kind === "Service")
      t.ok(find(kind === "Service" && spec.clusterIP ? "StatefulSet" : "Deployment", spec.selector.app));

  const [prometheus] = parseAllDocuments(text("prometheus.yml"));
  t.same(prometheus?.errors, []);
  const targets = prometheus?.toJS().scrape_configs[0].static_configs[0].targets;
  t.same(
    targets,
    [...text("upstreams.conf").matchAll(/server (\S+)/g)].map(([, target]) => target),
  );
  t.match(text("sdar@.service"), /^ExecStart=.* sdar serve --port %i /m);
  t.end();
});
