// Numbers, choices and schemas that look random and are the same each time.

export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed;
  }
  /** 0 to below 1 (mulberry32) */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  /** a whole number from `least` to `most` */
  whole(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1));
  }
  /** true so often */
  maybe(share = 0.5): boolean {
    return this.next() < share;
  }
  of<T>(list: readonly T[]): T {
    return list[this.whole(0, list.length - 1)] as T;
  }
  /** so many of a list, in its order */
  some<T>(list: readonly T[], count: number): T[] {
    const left = [...list];
    while (left.length > count) left.splice(this.whole(0, left.length - 1), 1);
    return left;
  }
  /** all of a list, in any order */
  shuffled<T>(list: readonly T[]): T[] {
    const all = [...list];
    for (let i = all.length - 1; i > 0; i--) {
      const j = this.whole(0, i);
      [all[i], all[j]] = [all[j] as T, all[i] as T];
    }
    return all;
  }
  /** one of a list, each as often as its share says */
  weighted<T>(shares: readonly (readonly [T, number])[]): T {
    let left = this.next() * shares.reduce((sum, [, share]) => sum + share, 0);
    for (const [one, share] of shares) {
      left -= share;
      if (left < 0) return one;
    }
    return shares.at(-1)?.[0] as T;
  }
  times<T>(count: number, make: (i: number) => T): T[] {
    return Array.from({ length: count }, (_, i) => make(i));
  }
}
