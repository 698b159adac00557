// Requests that wait for room in the queue, with `whenFull: "wait"`: in order of arrival within each key.

/** Who waits for room. */
export interface Waiter {
  readonly key: string;
}

export class Outside<T extends Waiter> {
  readonly #keys = new Map<string, Set<T>>();

  has(key: string): boolean {
    return this.#keys.has(key);
  }

  add(waiter: T): void {
    const same = this.#keys.get(waiter.key) ?? new Set();
    this.#keys.set(waiter.key, same.add(waiter));
  }

  delete(waiter: T): boolean {
    const same = this.#keys.get(waiter.key);
    const found = same?.delete(waiter) ?? false;
    if (same?.size === 0) this.#keys.delete(waiter.key);
    return found;
  }

  /** Takes out one after the other, keys in turns, whom there is room for when its turn comes. */
  *next(hasRoom: (waiter: T) => boolean): Generator<T> {
    for (let found = true; found; ) {
      found = false;
      for (const same of [...this.#keys.values()]) {
        const [first] = same;
        if (!first || !hasRoom(first)) continue;
        found = true;
        this.delete(first);
        yield first;
      }
    }
  }
}
