// llama.cpp is the peer that runs the same autoregressive weights: it gives the same tokens with the same log-probabilities. Runs
// where `npm run bench:peers` has installed it.
import { join } from "node:path";
import t from "tap";
import { readSamples } from "../lib/bench/prompts.js";
import { packageRoot } from "../lib/checkpoint.js";
import { Engine } from "../lib/index.js";

interface Peer {
  libraries: string;
  generator: string;
}
interface PeerBuild {
  isInstalled(): boolean;
  buildPeer(): Peer;
  convertModel(peer: Peer, folder: string, format: string): string;
}
interface PeerSide {
  ask(line: string): Promise<{ answer: { tokens: number[]; logprobs: number[] } }>;
  stop(): Promise<void>;
}
const peers = join(packageRoot, "bench", "peers");
const { isInstalled, buildPeer, convertModel }: PeerBuild = await import(join(peers, "build.mjs"));
const { Side }: { Side: { start(name: string, command: string, args: string[]): Promise<PeerSide> } } = await import(
  join(peers, "side.mjs")
);

const skip = isInstalled() ? false : "llama.cpp is not installed: npm ci --prefix bench/peers";
t.test("the parent's greedy answers are llama.cpp's", { skip }, async (t) => {
  const parent = join(packageRoot, "models", "qwen3-nano");
  const peer = buildPeer();
  const model = convertModel(peer, parent, "F32");
  const side = await Side.start("llama.cpp", peer.generator, [peer.libraries, model, "1024", "2", "F32"]);
  await using engine = await Engine.load(parent, { weights: "f32", kvCache: { dtype: "f32" } });
  const ends = engine.model.endTokenIds;
  let compared = 0;
  for (const { prompt } of readSamples(undefined, process.env.SDAR_TEST_FULL ? 1000 : 60)) {
    const tokens = await engine.tokenize([{ role: "user", content: prompt }]);
    const maxTokens = 64;
    const { answer } = await side.ask(`${maxTokens} ${ends.join(",")} ${tokens.join(",")}`);
    const { tokens: all } = await engine.generate({ tokens, maxTokens }).result();
    const ours = all.filter(({ id }) => !ends.includes(id));
    t.same(
      ours.map(({ id }) => id),
      answer.tokens,
      prompt,
    );
    const differences = ours.map(({ logprob }, i) => Math.abs(logprob - (answer.logprobs[i] as number)));
    t.ok(Math.max(0, ...differences) < 1e-3, `log-probabilities of ${prompt}`);
    compared += ours.length;
  }
  t.ok(compared > 500);
  await side.stop();
});
