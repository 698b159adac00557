// How long JavaScript's thread stands still.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** Milliseconds that this thread was ready to run and the system let others; 0 where it does not say. */
function waitedMs(): number {
  try {
    return Number(readFileSync("/proc/thread-self/schedstat", "utf8").split(" ")[1]) / 1e6;
  } catch {
    return 0;
  }
}

/** Milliseconds of the longest turn of the event loop while `work` went on, less those that the system gave to others. */
export async function stall(work: () => Promise<unknown>): Promise<number> {
  let longest = 0;
  let [ended, waited] = [performance.now(), waitedMs()];
  const turn = () => {
    const [now, waitedNow] = [performance.now(), waitedMs()];
    longest = Math.max(longest, now - ended - (waitedNow - waited));
    [ended, waited] = [now, waitedNow];
    turns = setImmediate(turn);
  };
  let turns = setImmediate(turn);
  try {
    await work();
    await sleep(2);
  } finally {
    clearImmediate(turns);
  }
  return longest;
}

/** The best of some tries: collections of garbage and the machine's host stall, too. */
export async function leastStall(work: () => Promise<unknown>): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let tries = 0; tries < 20 && least > 20; tries++) least = Math.min(least, await stall(work));
  return least;
}
