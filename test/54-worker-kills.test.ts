// Each job has one line of results, though workers and Redis are killed while they work.
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { Engine } from "../lib/index.js";
import { mergeResults } from "../lib/worker/results.js";
import { withoutRedis } from "./redis.js";
import { linesOf, setUp, until } from "./worker.js";

const count = 2000;
const skip = withoutRedis();

t.test("one line for each job", { skip }, async (t) => {
  const jobs = Array.from({ length: count }, (_, i) => ({
    id: `job ${i}: ä`,
    prompt: `Sort: ${97 - (i % 80)} ${i % 89} 5`,
    maxTokens: 16,
  }));
  const { redis, folder, enqueue, begin, finish, dead, results } = await setUp(t, jobs);
  t.equal(await enqueue(), count);
  const { child, closed } = begin();
  await until([results], count * 0.2, child);
  child.kill("SIGKILL");
  await closed;
  const before = linesOf(results);
  appendFileSync(results, '{"job":"id-job%200", "te'); // as if it had been killed within a line

  const other = join(folder, "other.jsonl");
  const [first, second] = [begin(), begin(other)];
  await until([results, other], count * 0.4, first.child);
  await redis.kill();
  await sleep(300); // answers come to their end meanwhile, and cannot be told
  await redis.start();
  t.equal(await enqueue(), count, "again, which adds nothing");
  await until([results, other], count * 0.5, first.child);
  for (const { child } of [first, second]) child.kill("SIGTERM");
  t.match(await first.closed, [0, null], first.stderr());
  t.match(await second.closed, [0, null], second.stderr());
  const engine = await Engine.load("sdar-nano");
  t.teardown(() => engine.dispose());
  await finish(engine);

  const mine = linesOf(results);
  t.same(mine.slice(0, before.length), before, "what was there stays");
  for (const lines of [mine, linesOf(other)]) t.equal(new Set(lines.map(({ job }) => job)).size, lines.length);
  const merged = join(folder, "all.jsonl");
  t.match(await mergeResults([results, other], merged), { lines: count });
  t.equal(linesOf(merged).length, count);
  t.same(new Set(linesOf(merged).map(({ id }) => id)), new Set(jobs.map(({ id }) => id)));
  t.same(await dead(), []);
});

t.test("told to stop while Redis is away, a worker ends when it is back", { skip }, async (t) => {
  const jobs = Array.from({ length: 200 }, (_, id) => ({ id, prompt: `Sort: ${id} 7`, maxTokens: 16 }));
  const { redis, enqueue, begin, results } = await setUp(t, jobs);
  t.equal(await enqueue(), jobs.length);
  const { child, closed, stderr } = begin();
  await until([results], 20, child);
  await redis.kill();
  await sleep(300); // tries to connect are further apart by now
  child.kill("SIGTERM");
  await sleep(100);
  await redis.start();
  t.match(await closed, [0, null], stderr());
});
