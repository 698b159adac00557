// Runs that are held back because their readers lag behind: how many there may be, and for how long.
import type { Clock } from "./clock.js";
import { SdarError } from "./errors.js";

export interface HeldLimits {
  /** completions of one key */
  maxHeld: number;
  /** milliseconds in which a reader reads nothing */
  heldMs: number;
}

/** A run that may be held. */
export interface Holdable {
  readonly key: string;
  /** completions it counts for */
  readonly answers: number;
  /** by the clock, when its reader last read */
  readonly lastRead: number;
  /** Ends it; it is no longer held then. */
  stalled(error: SdarError): void;
}

export class HeldRuns<T extends Holdable> {
  readonly #limits: HeldLimits;
  readonly #clock: Clock;
  readonly #keys = new Map<string, Map<T, () => void>>();

  constructor(limits: HeldLimits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
  }

  has(run: T): boolean {
    return this.#keys.get(run.key)?.has(run) ?? false;
  }

  /** Holds a run; where its key holds too many, the one whose reader has stood still longest ends. */
  add(run: T): void {
    if (this.has(run)) return;
    const held = this.#keys.get(run.key) ?? new Map<T, () => void>();
    this.#keys.set(run.key, held);
    held.set(run, () => {});
    this.#watch(run, held, this.#clock.now());
    let count = 0;
    for (const { answers } of held.keys()) count += answers;
    const { maxHeld } = this.#limits;
    if (count <= maxHeld) return;
    const stalest = [...held.keys()].reduce((a, b) => (b.lastRead < a.lastRead ? b : a));
    const message = `its reader stood still while more than ${maxHeld} completions of one key were held (queue.maxHeld)`;
    this.#end(stalest, message);
  }

  delete(run: T): void {
    const held = this.#keys.get(run.key);
    held?.get(run)?.();
    held?.delete(run);
    if (held?.size === 0) this.#keys.delete(run.key);
  }

  #watch(run: T, held: Map<T, () => void>, since: number): void {
    const { heldMs } = this.#limits;
    const left = Math.max(run.lastRead, since) + heldMs - this.#clock.now();
    if (left > 0) {
      held.set(
        run,
        this.#clock.after(left, () => this.#watch(run, held, since)),
      );
    } else {
      this.#end(run, `its reader read nothing for ${heldMs} ms (queue.heldMs)`);
    }
  }

  #end(run: T, why: string): void {
    this.delete(run);
    run.stalled(new SdarError("READER_STALLED", `the run was held back for its reader, and ended: ${why}`));
  }
}
