// The same load given to the engine itself, in this process.
import { Engine } from "../../dist/index.js";
import { Plan, Tally } from "./plan.mjs";

const [settings] = process.argv.slice(2);
const engine = await Engine.load("sdar-nano", JSON.parse(settings));

async function ask({ index, prompt, hangUpAfter }, tally, signal) {
  const answer = tally.answer();
  let texts = 0;
  let left = hangUpAfter === 0;
  const run = engine.generate({ messages: [{ role: "user", content: prompt }], signal });
  if (left) setImmediate(run.abort);
  try {
    for await (const { text } of run) {
      if (text === "") continue;
      answer.text(text);
      // Leaving the loop ends the run.
      left = ++texts === hangUpAfter;
      if (left) break;
    }
    await run.result();
    if (left) answer.hangUp();
    else answer.complete(index);
  } catch (error) {
    tally.error(error.code);
  }
}

let seed = 0;
process.on("message", async ({ clients, seconds }) => {
  const tally = new Tally();
  const ended = new AbortController();
  const before = engine.stats().filledTokens;
  setTimeout(() => {
    process.send({ ...tally.report(), tokens: engine.stats().filledTokens - before });
    ended.abort();
  }, 1000 * seconds);
  for (let i = 0; i < clients; i++) {
    const plan = new Plan(++seed);
    (async () => {
      while (!ended.signal.aborted) await ask(plan.next(), tally, ended.signal);
    })();
  }
});
process.send("ready");
