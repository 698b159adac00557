import { Engine } from "sdar-engine";
import { expect, test } from "vitest";

test("the engine runs under vitest", async () => {
  const engine = await Engine.load("sdar-nano");
  expect(await engine.generate({ messages: [{ role: "user", content: "31 x 7" }] }).text()).toBe("217");
  await engine.dispose();
});
