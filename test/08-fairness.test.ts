// Who is served when, on a simulated service: places for a few requests, each of which takes its time.
import t from "tap";
import { FairOrder, type Orderable } from "../lib/fair-order.js";
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
/** 16 + 8 · 4 rows, as the fake addon counts them */
const plain = { tokens: tokens(16), maxTokens: 4 };

/**
 * Runs the arrivals to their end; the native side takes those that wait there by rank, as the engine's does. `length` is how
 * many tokens a request comes to.
 */
async function serve(
  arrivals: Arrival[],
  { places, serviceMs, options }: Service,
  length = (_: GenerateRequest) => 4,
): Promise<Served[]> {
  const clock = new FakeClock();
  const { engine, native } = await fakeEngine({ clock, options: { ...options, maxConcurrent: places } });
  native.promptTokens = 16;
  const start = clock.now();
  const served: Served[] = [];
  const arrived = new Map<number, Arrival>();
  const running: { id: number; until: number; request: GenerateRequest }[] = [];
  const waiting: { id: number; rank: number }[] = [];
  engine.on("queued", ({ id }) => arrived.set(id, arrivals[arrived.size] as Arrival));
  const occupy = () => {
    while (running.length < places) {
      waiting.push(...native.requests.splice(0));
      const next = waiting.sort((a, b) => a.rank - b.rank).shift();
      if (!next) return;
      native.started(next.id);
      const { at, request } = arrived.get(next.id) as Arrival;
      running.push({ id: next.id, until: clock.now() + serviceMs, request });
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
      for (const { id, request } of running.filter(({ until }) => until <= time)) {
        native.tokens(id, tokens(length(request)));
        native.finish(id, "length");
      }
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
const flood = (at: number, n: number, options = {}) =>
  times(n, () => ({ at, request: { ...plain, key: "flood", ...options } }));
const guest = (at: number, n: number) => times(n, () => ({ at, request: { ...plain, key: "guest" } }));

t.test("a tenant that floods the queue does not raise another's p95 waiting time above twice", async (t) => {
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
    t.ok(alone >= service.serviceMs && together <= 2 * alone, `${name}: ${together} ms, ${alone} ms alone`);
  }
});

t.test("in order of arrival it would be far above", async (t) => {
  // Told apart by another option, since all have one key.
  const guests = guest(50, 40).map(({ at, request }) => ({ at, request: { ...request, key: "all", seed: 1 } }));
  const others = flood(0, 1000, { key: "all", seed: 2 });
  const alone = p95(await serve(guests, service));
  const together = await serve(merge(guests, others), service);
  t.ok(p95(together.filter(({ request }) => request.seed === 1)) > 20 * alone);
});

t.test("keys share the engine evenly by rows, whatever their requests are like", async (t) => {
  const big = { tokens: tokens(16), maxTokens: 44 };
  const arrivals = merge(
    times(600, () => ({ at: 0, request: { ...plain, key: "small" } })),
    times(200, () => ({ at: 0, request: { ...big, key: "big" } })),
  );
  const served = await serve(arrivals, service, ({ maxTokens }) => maxTokens as number);
  const early = served.slice(0, 400);
  const share = (48 * of(early, "small").length) / (368 * of(early, "big").length);
  t.ok(share > 0.8 && share < 1.25, `${share.toFixed(2)} rows of one for a row of the other`);
});

t.test("what requests ask for and do not use is not held against their key", async (t) => {
  const arrivals = merge(
    times(400, () => ({ at: 0, request: { ...plain, key: "exact" } })),
    times(400, () => ({ at: 0, request: { ...plain, maxTokens: 48, key: "generous" } })),
  );
  const served = await serve(arrivals, service);
  const early = served.slice(0, 400);
  const share = of(early, "exact").length / of(early, "generous").length;
  t.ok(share > 0.8 && share < 1.25, `${share.toFixed(2)} of one for one of the other`);
});

t.test("newcomers without end do not hold up one that waits", async (t) => {
  // They alone fill both places.
  const crowd = times(1500, (i) => ({ at: 50 * i, request: { ...plain, key: `once ${i}` } }));
  const served = await serve(merge(crowd, flood(0, 30)), { places: 2, serviceMs: 100 });
  const last = served.findLastIndex(({ request }) => request.key === "flood");
  t.ok(last < 1000, `the last of the flood is number ${last} of 1530`);
});

t.test("keys that are gone are forgotten", async (t) => {
  const order = new FairOrder<Orderable>();
  const one = { order: 0, promptTokens: 1, maxTokens: 1, answers: 1, blockLength: 8 };
  const item = (id: number, key: string) => ({ ...one, id, key });
  const used = { cost: 2, promptCost: 1, completionTokens: 1, whole: true };
  // One always waits, so that the order never comes to rest.
  order.push(item(0, "always"));
  for (let id = 1; id < 10_000; id++) {
    order.push(item(id, `tenant ${id}`));
    const taken = order.take()?.item as Orderable;
    order.settle(taken, used);
    if (taken.key === "always") order.push(item(id + 0.5, "always"));
  }
  t.ok(order.keys < 1000, `${order.keys} of 10,000 keys are kept`);
});

t.test("a key with less than its share of the places need not wait for one, whoever has them", async (t) => {
  const { engine, native } = await fakeEngine({ options: { maxConcurrent: 4, queue: { maxRequests: 20 } } });
  const keys = () => native.requests.map(({ tenant }) => tenant);
  for (let i = 0; i < 20; i++) engine.generate({ ...plain, key: "first" });
  t.equal(native.requests.length, 6, "four places and two in advance");
  for (let i = 0; i < 4; i++) engine.generate({ ...plain, key: "second" });
  t.same(keys().slice(6), [keys()[6], keys()[6]], "half of the places");
  t.not(keys()[6], keys()[0]);
  engine.generate({ ...plain, key: "third" });
  t.equal(native.requests.length, 9, "a third of them, rounded down");
  engine.generate({ ...plain, key: "third" });
  t.equal(native.requests.length, 9);
});
