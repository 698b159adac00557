// What an evaluation comes to: shares with their intervals, of all prompts and of each task, and differences.
import type { EvalAnswer, EvalRun } from "./eval.js";
import { sum, table } from "./report.js";
import { type Interval, middle, pairedDifference, resamples, wilson } from "./statistics.js";

/** In percent, with its interval of 95 %. */
interface Share {
  percent: number;
  interval: Interval;
}

interface Shares {
  items: number;
  accuracy: Share;
  /** with several samples: at least one is right, and the one that came most often */
  pass?: Share;
  majority?: Share;
}

export interface EvalResult extends Shares {
  name: string;
  model: string;
  options: object;
  weights: string;
  device: string;
  tasks: Record<string, Shares>;
  /** prompts whose answer failed or could not be judged, all of them wrong; and the first reason */
  errors: number;
  error?: string;
  tokens: number;
  forwards: number;
  seconds: number;
  tokensPerSecond: number;
  tokensPerForward: number;
  /** points of accuracy above the first result, on the prompts that both have answered */
  difference?: { points: number; interval: Interval; items: number };
}

const hundredfold = (share: number, interval: Interval): Share => ({
  percent: 100 * share,
  interval: interval.map((end) => 100 * end) as Interval,
});

const rightOf = ({ right }: EvalAnswer) => right.filter(Boolean).length;

function sharesOf(answers: readonly EvalAnswer[], samples: number): Shares {
  const items = answers.length;
  const of = (count: number) => hundredfold(count / items, wilson(count, items));
  if (samples === 1) return { items, accuracy: of(sum(answers.map(rightOf))) };
  const right = answers.map((answer) => rightOf(answer) / samples);
  // Samples of one prompt are not independent: prompts are resampled.
  const means = resamples(items, 1000).map((times) => sum(right.map((one, i) => one * (times[i] as number))) / items);
  return {
    items,
    accuracy: hundredfold(sum(right) / items, middle(means)),
    pass: of(answers.filter((answer) => rightOf(answer) > 0).length),
    majority: of(answers.filter(({ majority }) => majority).length),
  };
}

/** Runs without an answer are left out. */
export function evalResults(runs: readonly EvalRun[], samples: number): EvalResult[] {
  const some = runs.filter(({ answers }) => answers.length > 0);
  return some.map((run): EvalResult => {
    const { variant, answers, weights, device, seconds, path } = run;
    const tasks = [...new Set(answers.flatMap(({ item }) => item.task ?? []))].sort();
    const [tokens, forwards] = (["completionTokens", "forwards"] as const).map((count) =>
      sum(answers.map(({ usage }) => usage?.[count] ?? 0)),
    ) as [number, number];
    const failed = answers.filter(({ error }) => error !== undefined);
    return {
      name: variant.name,
      model: path,
      options: variant.options,
      weights,
      device,
      ...sharesOf(answers, samples),
      tasks: Object.fromEntries(
        tasks.map((task) => [
          task,
          sharesOf(
            answers.filter(({ item }) => item.task === task),
            samples,
          ),
        ]),
      ),
      errors: failed.length,
      ...(failed[0] && { error: `${failed[0].item.where}: ${failed[0].error}` }),
      ...{ tokens, forwards, seconds, tokensPerSecond: tokens / seconds, tokensPerForward: tokens / forwards },
      ...(run !== some[0] && { difference: differenceOf(run, some[0] as EvalRun, samples) }),
    };
  });
}

function differenceOf(own: EvalRun, first: EvalRun, samples: number): EvalResult["difference"] {
  const others = new Map(first.answers.map((answer) => [answer.index, answer]));
  const both = own.answers.filter(({ index }) => others.has(index));
  if (both.length === 0) return undefined;
  const counts = (answers: readonly EvalAnswer[]) => Uint8Array.from(answers, rightOf);
  const { points, interval } = pairedDifference(
    counts(both),
    counts(both.map(({ index }) => others.get(index) as EvalAnswer)),
  );
  return { points: points / samples, interval: interval.map((end) => end / samples) as Interval, items: both.length };
}

/** Tables for people. */
export function describeEval(results: readonly EvalResult[], samples: number): string {
  const share = (one: Share | undefined) =>
    one ? `${one.percent.toFixed(1)} (${one.interval.map((end) => end.toFixed(1)).join("-")})` : "";
  const several = samples > 1;
  const compared = results.length > 1;
  const head = ["", "prompts", "right %", ...(several ? [`pass@${samples} %`, `majority@${samples} %`] : [])];
  const rows = results.map((r) => [
    ...[r.name, r.items, share(r.accuracy), ...(several ? [share(r.pass), share(r.majority)] : [])],
    ...[r.tokensPerSecond.toFixed(1), Number.isNaN(r.tokensPerForward) ? "" : r.tokensPerForward.toFixed(2)],
    ...(compared ? [difference(r)] : []),
  ]);
  const tasks = [...new Set(results.flatMap((r) => Object.keys(r.tasks)))].sort();
  const byTask = tasks.map((task) => [task, ...results.map((r) => share(r.tasks[task]?.accuracy))]);
  const failures = results.filter(({ errors }) => errors > 0);
  return [
    table([[...head, "tokens/s", "tokens/forward", ...(compared ? ["points above the first"] : [])], ...rows]),
    ...(tasks.length > 0 ? ["\n", table([["right %", ...results.map(({ name }) => name)], ...byTask])] : []),
    "in brackets 95 % intervals\n",
    ...failures.map(({ name, errors, error }) => `${name}: ${errors} prompt(s) without an answer; ${error}\n`),
  ].join("");
}

function difference({ difference: of }: EvalResult): string {
  if (!of) return "";
  const signed = (value: number) => `${value > 0 ? "+" : ""}${value.toFixed(1)}`;
  return `${signed(of.points)} (${of.interval.map(signed).join(" to ")})`;
}
