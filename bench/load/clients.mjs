// Clients of the server, in a process of their own: each streams one answer after the other over a connection that it keeps.
import { Agent, request } from "node:http";
import { Plan, Tally } from "./plan.mjs";

const path = "/v1/chat/completions";
const headers = { "content-type": "application/json" };
const asked = (prompt, more) =>
  JSON.stringify({ messages: [{ role: "user", content: prompt }], stream: true, ...more });

/** One answer; resolves once it is there, or nobody waits for it any more. Tells the tally what is wrong with it. */
function ask(agent, port, { index, prompt, hangUpAfter }, tally) {
  return new Promise((resolve) => {
    const answer = tally.answer();
    let texts = 0;
    let left = false;
    let finished = false;
    let done = false;
    const sent = request({ agent, port, method: "POST", path, headers });
    const hangUp = () => {
      left = true;
      answer.hangUp();
      sent.destroy();
      resolve();
    };
    const take = (event) => {
      if (done || !event.startsWith("data: ")) return tally.error("an event that is none");
      if (event === "data: [DONE]") {
        done = true;
        return;
      }
      const { choices, error } = JSON.parse(event.slice(6));
      if (error) return tally.error(`an event that says ${error.code}`);
      const [{ delta, finish_reason }] = choices;
      if (finished) tally.error("an event after the end");
      finished = finish_reason !== null;
      if (!delta.content) return;
      answer.text(delta.content);
      if (++texts === hangUpAfter) hangUp();
    };
    sent.on("error", ({ code }) => {
      if (!left) tally.error(code);
      resolve();
    });
    sent.on("response", (response) => {
      const ok = response.statusCode === 200;
      if (!ok) tally.error(response.statusCode);
      let rest = "";
      response.setEncoding("utf8").on("data", (text) => {
        const events = (rest + text).split("\n\n");
        rest = events.pop();
        for (const event of events) if (ok && !left) take(event);
      });
      response.on("error", () => {});
      response.on("close", () => {
        if (ok && !left && done && finished && rest === "") answer.complete(index);
        else if (ok && !left) tally.error("a stream without its end");
        resolve();
      });
    });
    sent.end(asked(prompt));
    if (hangUpAfter === 0) setImmediate(hangUp);
  });
}

/** Asks for as much as can be had, reads how it begins, and then nothing. */
function stall(agent, port) {
  const sdar = { strategy: "sequential", tokens: true, drafts: true };
  const more = { n: 8, temperature: 1, ignore_eos: true, logprobs: true, top_logprobs: 20, sdar };
  const sent = request({ agent, port, method: "POST", path, headers });
  sent.on("error", () => {});
  sent.on("response", (response) => response.on("error", () => {}).once("data", () => response.pause()));
  sent.end(asked("Count the atoms in Ca3(PO4)2", more));
}

let seed = 0;
const standing = new Agent();

function load({ port, clients, seconds }) {
  const agent = new Agent({ keepAlive: true });
  const tally = new Tally();
  const cpu = process.cpuUsage();
  let ended = false;
  const end = () => {
    const { user, system } = process.cpuUsage(cpu);
    process.send({ ...tally.report(), clientSeconds: (user + system) / 1e6 });
    ended = true;
    agent.destroy();
  };
  setTimeout(end, 1000 * seconds);
  for (let i = 0; i < clients; i++) {
    const plan = new Plan(++seed);
    (async () => {
      while (!ended) await ask(agent, port, plan.next(), tally);
    })();
  }
}

process.on("message", ({ slow, ...message }) => {
  if (slow === undefined) return load(message);
  if (slow === 0) standing.destroy();
  for (let i = 0; i < slow; i++) stall(standing, message.port);
  process.send("done");
});
process.send("ready");
