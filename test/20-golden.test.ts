import t from "tap";
import { loadBinding } from "../lib/binding.js";
import { Engine } from "../lib/index.js";
import { differences, goldenCases, goldenModel, goldenNames, requestOf } from "./golden.js";

// Tokens, steps and confidences of every golden case in f32, in every instruction set of this machine.
for (const isa of loadBinding().instructionSets()) {
  for (const name of goldenNames) {
    // It takes longest in plain loops, and sdar-nano has its shape.
    if (isa === "portable" && name === "shipped" && process.env.SDAR_TEST_QUICK) continue;
    t.test(`${name} with ${isa}`, async (t) => {
      const engine = await Engine.load(goldenModel(name), { weights: "f32", isa });
      t.match(engine.model, { isa, weights: "f32", kv: { dtype: "f32" } });
      const cases = goldenCases(name);
      const results = await Promise.all(cases.map((golden) => engine.generate(requestOf(golden)).result()));
      const wrong = cases.flatMap((golden, i) => {
        const found = differences(golden, results[i] as (typeof results)[number]);
        return found.length > 0 ? [{ case: i, found: found.slice(0, 3) }] : [];
      });
      t.same(wrong, [], `all ${cases.length} cases`);
      await engine.dispose();
    });
  }
}
