// How a command ends by a signal.
import { SdarError } from "../errors.js";

const numbers = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 };
type Name = keyof typeof numbers;

let interrupted: ((exitCode: number) => void) | undefined;
let names: readonly Name[] = [];
/** npx and timeout send on what the whole group of processes gets: so soon, a second signal is the same one. */
const sameMs = 500;
let actedAt = Number.NEGATIVE_INFINITY;

/** The first Ctrl-C (or other signal of `signals`) is the command's own; the next one ends the process as usual. */
export function onInterrupt(act: (exitCode: number) => void, signals: readonly Name[] = ["SIGINT"]): void {
  interrupted = act;
  names = signals;
}

/**
 * Work that a signal ends early: it is told through an AbortSignal, rejects with ABORTED, and what it says of how to go on is
 * printed. The exit code is the signal's.
 */
export async function interruptible(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const interrupt = new AbortController();
  let exitCode = 0;
  const stop = (code: number) => {
    exitCode = code;
    interrupt.abort();
  };
  onInterrupt(stop, ["SIGINT", "SIGTERM", "SIGHUP"]);
  try {
    await work(interrupt.signal);
  } catch (error) {
    if (!(interrupt.signal.aborted && SdarError.is(error, "ABORTED"))) throw error;
    process.stderr.write(`${error.message.replace("the same call", "the same command")}\n`);
    process.exitCode = exitCode;
  }
}

/** An end by a signal clears up as an end by exit does, whoever else listens to the signal. */
export function exitOnSignals(): void {
  for (const [name, number] of Object.entries(numbers) as [Name, number][]) {
    process.on(name, () => {
      const act = names.includes(name) ? interrupted : undefined;
      interrupted = undefined;
      if (act) {
        actedAt = performance.now();
        act(128 + number);
      } else if (performance.now() - actedAt > sameMs) process.exit(128 + number);
    });
  }
}
