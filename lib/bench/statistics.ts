// What can be said of a model's answers from few samples: intervals of 95 %, and curves compared on the same samples.
import { sum } from "./report.js";

export type Interval = [low: number, high: number];

/** Numbers below `limit`, the same ones every time. Source: Park and Miller, "Random number generators", 1988. */
export function randomIntegers(): (limit: number) => number {
  let state = 1;
  return (limit) => {
    state = (state * 48271) % 2147483647;
    return state % limit;
  };
}

/** Of a share seen in `of` trials. Source: Wilson, "Probable inference", 1927. */
export function wilson(right: number, of: number): Interval {
  const z = 1.96;
  const share = right / of;
  const middle = share + z ** 2 / (2 * of);
  const reach = z * Math.sqrt((share * (1 - share)) / of + z ** 2 / (4 * of ** 2));
  const end = (at: number) => Math.min(1, Math.max(0, at / (1 + z ** 2 / of)));
  return [end(middle - reach), end(middle + reach)];
}

/** How often each of `size` samples is drawn when as many are drawn with replacement; the same numbers every time. */
export function resamples(size: number, count: number): Uint16Array[] {
  const random = randomIntegers();
  return Array.from({ length: count }, () => {
    const times = new Uint16Array(size);
    for (let i = 0; i < size; i++) {
      const drawn = random(size);
      times[drawn] = (times[drawn] as number) + 1;
    }
    return times;
  });
}

/** The middle 95 % of some numbers. */
export function middle(values: readonly number[]): Interval {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))] as number;
  return [at(0.025), at(0.975)];
}

/** Points of accuracy of `own` above `other`, and their interval: both have judged the same samples, which are resampled. */
export function pairedDifference(own: Uint8Array, other: Uint8Array, rounds = 1000) {
  const points = [new Uint16Array(own.length).fill(1), ...resamples(own.length, rounds)].map((times) => {
    let difference = 0;
    for (let i = 0; i < times.length; i++)
      difference += (times[i] as number) * ((own[i] as number) - (other[i] as number));
    return (100 * difference) / own.length;
  });
  return { points: points[0] as number, interval: middle(points.slice(1)) };
}

/** What a setting made of each sample. */
export interface Outcome {
  right: Uint8Array;
  forwards: Float64Array;
}

/** Means over the samples, each counted as often as `times` says. */
interface Mean {
  forwards: number;
  accuracy: number;
}

function mean({ right, forwards }: Outcome, times: Uint16Array): Mean {
  const total = sum(times);
  let [all, hits] = [0, 0];
  for (let i = 0; i < times.length; i++) {
    hits += (times[i] as number) * (right[i] as number);
    all += (times[i] as number) * (forwards[i] as number);
  }
  return { forwards: all / total, accuracy: hits / total };
}

export interface Comparison {
  /** points of accuracy above the curve at the same number of forwards; undefined outside the curve */
  points?: number;
  pointsInterval?: Interval;
  /** forwards over the fewest with which the curve is as accurate; more than that is never asked of the curve's end */
  forwardsRatio: number;
  forwardsRatioInterval: Interval;
}

/**
 * Each outcome against the curve through other outcomes of the same samples, straight between them; intervals from
 * resampled samples, paired: a sample counts as often for the curve as for what is compared with it.
 */
export function compareWithCurve(outcomes: readonly Outcome[], curve: readonly Outcome[], rounds = 1000): Comparison[] {
  const size = curve[0]?.right.length ?? 0;
  const all = new Uint16Array(size).fill(1);
  const draws = [all, ...resamples(size, rounds)];
  const curves = draws.map((times) =>
    curve.map((one) => mean(one, times)).sort((a, b) => a.forwards - b.forwards || a.accuracy - b.accuracy),
  );
  return outcomes.map((outcome) => {
    const means = draws.map((times) => mean(outcome, times));
    const points = means.map((m, i) => 100 * (m.accuracy - accuracyAt(curves[i] as Mean[], m.forwards)));
    const ratios = means.map((m, i) => m.forwards / forwardsFor(curves[i] as Mean[], m.accuracy));
    const [ends, own] = [curves[0] as Mean[], means[0] as Mean];
    const inside = own.forwards >= (ends[0] as Mean).forwards && own.forwards <= (ends.at(-1) as Mean).forwards;
    return {
      ...(inside && { points: points[0] as number, pointsInterval: middle(points.slice(1)) }),
      forwardsRatio: ratios[0] as number,
      forwardsRatioInterval: middle(ratios.slice(1)),
    };
  });
}

/** On the line through a curve's points, which rise in forwards; that of the nearer end outside. */
export function accuracyAt(curve: readonly Mean[], forwards: number): number {
  const next = curve.findIndex((m) => m.forwards >= forwards);
  if (next === -1) return (curve.at(-1) as Mean).accuracy;
  if (next === 0) return (curve[0] as Mean).accuracy;
  const [a, b] = [curve[next - 1] as Mean, curve[next] as Mean];
  return a.accuracy + ((b.accuracy - a.accuracy) * (forwards - a.forwards)) / (b.forwards - a.forwards);
}

/** Where that line first reaches an accuracy; its end when it never does. */
export function forwardsFor(curve: readonly Mean[], accuracy: number): number {
  const next = curve.findIndex((m) => m.accuracy >= accuracy);
  if (next === -1) return (curve.at(-1) as Mean).forwards;
  if (next === 0) return (curve[0] as Mean).forwards;
  const [a, b] = [curve[next - 1] as Mean, curve[next] as Mean];
  return a.forwards + ((b.forwards - a.forwards) * (accuracy - a.accuracy)) / (b.accuracy - a.accuracy);
}
