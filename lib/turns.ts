// One piece of work at a time, so that whoever has much of it is not in the way of others: keys take turns.
export class Turns {
  /** by key, in the order of their turns */
  readonly #waiting = new Map<string, (() => Promise<void>)[]>();
  #busy = false;
  #count = 0;

  /** that wait, or are done now */
  get count(): number {
    return this.#count;
  }

  run<T>(key: string, work: () => Promise<T>): Promise<T> {
    this.#count++;
    return new Promise((resolve, reject) => {
      const turn = () =>
        work()
          .then(resolve, reject)
          .finally(() => this.#count--);
      const own = this.#waiting.get(key);
      if (own) own.push(turn);
      else this.#waiting.set(key, [turn]);
      void this.#go();
    });
  }

  async #go(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    for (const [key, own] of this.#waiting) {
      const turn = own.shift();
      this.#waiting.delete(key);
      // Behind all others, also those that come meanwhile.
      if (own.length > 0) this.#waiting.set(key, own);
      await turn?.();
    }
    this.#busy = false;
  }
}
