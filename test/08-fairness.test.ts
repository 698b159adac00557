// Who is served when, on a simulated service: places for a few requests, each of which takes its time.
import t from "tap";
import type { GenerateRequest, LoadOptions } from "../lib/index.js";
import { FakeClock, fakeEngine } from "./fake-binding.js";

interface Arrival {
  /** milliseconds */
  at: number;
  request: GenerateRequest;
}

interface Served {
  request: GenerateRequest;
  /** milliseconds from its arrival to its place */
  waited: number;
}

interface Service {
  places: number;
  /** of every request */
  serviceMs: number;
  options?: LoadOptions;
}

const tokens = (n: number) => Array(n).fill(1);
/** 20 tokens in all, which the fake addon says it has computed, too */
const plain = { tokens: tokens(16), maxTokens: 4 };

/** Runs the arrivals to their end; the native side takes those that wait there by rank, as the engine's does. */
async function serve(arrivals: Arrival[], { places, serviceMs, options }: Service): Promise<Served[]> {
  const clock = new FakeClock();
  const { engine, native } = await fakeEngine({ clock, options: { ...options, maxConcurrent: places } });
  native.promptTokens = 16;
  const start = clock.now();
  const served: Served[] = [];
  const arrived = new Map<number, Arrival>();
  const running: { id: number; until: number }[] = [];
  const waiting: { id: number; rank: number }[] = [];
  engine.on("queued", ({ id }) => arrived.set(id, arrivals[arrived.size] as Arrival));
  const occupy = () => {
    while (running.length < places) {
      waiting.push(...native.requests.splice(0));
      const next = waiting.sort((a, b) => a.rank - b.rank).shift();
      if (!next) return;
      native.started(next.id);
      running.push({ id: next.id, until: clock.now() + serviceMs });
      const { at, request } = arrived.get(next.id) as Arrival;
      served.push({ request, waited: clock.now() - start - at });
    }
  };
  let next = 0;
  while (served.length < arrivals.length) {
    const arrival = arrivals[next];
    const end = Math.min(...running.map(({ until }) => until));
    const time = Math.min(end, arrival ? start + arrival.at : Number.POSITIVE_INFINITY);
    clock.pass(time - clock.now());
    if (time === end) {
      for (const { id } of running.filter(({ until }) => until <= time)) native.finish(id, "length");
      running.splice(0, running.length, ...running.filter(({ until }) => until > time));
      // The native side goes on by itself before this thread hears of it.
      occupy();
      native.wake();
    } else {
      engine.generate((arrival as Arrival).request);
      next++;
    }
    occupy();
  }
  return served;
}

const of = (served: Served[], key: string) => served.filter(({ request }) => request.key === key);
const p95 = (served: Served[]) => {
  const sorted = served.map(({ waited }) => waited).sort((a, b) => a - b);
  return sorted[Math.ceil(0.95 * sorted.length) - 1] as number;
};
const times = <T>(n: number, make: (i: number) => T) => Array.from({ length: n }, (_, i) => make(i));
const merge = (...all: Arrival[][]) => all.flat().sort((a, b) => a.at - b.at);

const places = 8;
const service = { places, serviceMs: 100 };

t.test("a tenant that floods the queue does not raise another's p95 waiting time above twice", async (t) => {
  const flood = (at: number, n: number, options = {}) =>
    times(n, () => ({ at, request: { ...plain, key: "flood", ...options } }));
  const guest = (at: number, n: number) => times(n, () => ({ at, request: { ...plain, key: "guest" } }));
  const scenarios: Record<string, [guest: Arrival[], flood: Arrival[]]> = {
    "a burst after the flood": [guest(50, 40), flood(0, 1000)],
    "a burst before the flood": [guest(0, 40), flood(1, 1000)],
    "a small burst": [guest(50, 20), flood(0, 1000)],
    "a large burst": [guest(50, 400), flood(0, 2000)],
    "bursts again and again": [
      times(10, (i) => guest(1500 * i, 32)).flat(),
      times(3000, (i) => flood(5 * Math.floor(i / 2), 1)).flat(),
    ],
    "a flood of higher priority": [guest(50, 40), flood(0, 1000, { priority: 100 })],
    "a flood that asks for more tokens than it uses": [guest(50, 40), flood(0, 1000, { maxTokens: 40 })],
  };
  for (const [name, [guests, others]] of Object.entries(scenarios)) {
    const alone = p95(of(await serve(guests, service), "guest"));
    const together = p95(of(await serve(merge(guests, others), service), "guest"));
    console.error(name, alone, together / alone);
    t.ok(alone >= service.serviceMs && together <= 2 * alone, `${name}: ${together} ms, ${alone} ms alone`);
  }
});
