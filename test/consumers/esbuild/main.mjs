import { Engine } from "sdar-engine";

await answer(await Engine.load("sdar-nano"));

async function answer(engine) {
  console.log(await engine.generate({ messages: [{ role: "user", content: "31 x 7" }] }).text());
  await engine.dispose();
}
