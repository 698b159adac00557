import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { packageRoot, shippedModelPath } from "../lib/checkpoint.js";
import { sdar } from "./sdar.js";

const scratch = mkdtempSync(join(tmpdir(), "sdar-compare-"));
t.teardown(() => rmSync(scratch, { recursive: true }));

t.test("bench compare: a model, its parent, and the parent with drafts", async (t) => {
  const models = ["--sdar", shippedModelPath(), "--ar", join(packageRoot, "models", "qwen3-nano")];
  const svg = join(scratch, "compare", "plot.svg");
  const args = ["bench", "compare", ...models, "--lossless", "--limit", "6", "--svg", svg];
  const { status, stdout } = await sdar([...args, "--json"]);
  t.equal(status, 0);
  const { results, settings } = JSON.parse(stdout);
  const [parent, child, lossless] = results;
  t.same([parent.name, child.name, lossless.name], ["parent", "SDAR", "lossless"]);
  t.match(settings, { prompts: 6, parent: { path: /qwen3-nano/ }, sdar: { path: /sdar-nano/ } });
  t.equal(parent.tokensPerForward, 1);
  t.ok(child.tokensPerForward > 1.5 && lossless.tokensPerForward > 1.2);
  t.same([lossless.sameTextAsParent, lossless.accuracy], [1, parent.accuracy], "the parent's own answers");
  t.equal(lossless.tokens, parent.tokens);
  for (const { accuracy, accuracyInterval, ofParent } of results) {
    t.ok(accuracyInterval[0] <= accuracy.all && accuracy.all <= accuracyInterval[1]);
    const { value, interval } = ofParent.secondsPerAnswer;
    t.ok(interval[0] <= value && value <= interval[1]);
  }
  t.match(readFileSync(svg, "utf8"), /^<svg.*lossless.*<\/svg>\n$/s);
  const [, sdarModel, , ar] = models;
  t.match(await sdar(["bench", "compare", "--sdar", `${ar}`, "--ar", `${sdarModel}`, "--limit", "1"]), {
    status: 2,
    stderr: /--ar: .*sdar-nano is block_diffusion; give a checkpoint that is autoregressive/,
  });
});
