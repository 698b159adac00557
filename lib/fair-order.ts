// The order in which waiting requests are taken: fair among keys, by aged priority within a key.
//
// Among keys: start-time fair queueing (Goyal, Vin and Cheng, 1996). A key's tag grows by the tokens of each request that is
// taken; the smallest tag is next. So keys that always have something waiting get equal shares of tokens, whatever they send.
// A key that had nothing waiting begins a head start before the others, since they hold all the places it has to wait for:
// without one its requests wait more than twice as long as if it were alone. The head start is what is being computed, four
// times; the virtual time it is taken from moves on with every third token given away, so that newcomers cannot hold
// the others up for ever.

/** A request as the order sees it. */
export interface Orderable {
  /** ascending in order of arrival */
  readonly id: number;
  readonly key: string;
  /** within its key, lower goes first, then the lower id */
  readonly order: number;
  readonly promptTokens: number;
  /** of each of its answers, at most */
  readonly maxTokens: number;
  readonly answers: number;
}

/** What became of a request that was taken, in tokens computed for it; `whole` unless it was cut short. */
export interface Used {
  promptTokens: number;
  completionTokens: number;
  whole: boolean;
}

interface Tenant<T> {
  tag: number;
  /** in the order in which they are taken */
  waiting: T[];
  running: number;
  /** completion tokens of an answer, averaged over the last ones */
  mean: number | undefined;
}

const headStartFactor = 4;
const averaged = (mean: number | undefined, value: number) => (mean === undefined ? value : mean + (value - mean) / 8);

export class FairOrder<T extends Orderable> {
  readonly #tenants = new Map<string, Tenant<T>>();
  /** those of them with something waiting */
  readonly #backlogged = new Set<Tenant<T>>();
  readonly #charged = new Map<T, number>();
  #chargedTotal = 0;
  #virtualTime = 0;
  #mean: number | undefined;
  #sweepAt = 64;

  push(item: T): void {
    const tenant = this.#tenant(item.key);
    if (tenant.waiting.length === 0) {
      tenant.tag = Math.max(tenant.tag, this.#virtualTime - this.#headStart);
      this.#backlogged.add(tenant);
    }
    tenant.waiting.splice(place(tenant.waiting, item), 0, item);
  }

  /** Takes out one that waits and shall not run; false when it does not wait. */
  remove(item: T): boolean {
    const tenant = this.#tenants.get(item.key);
    const at = tenant ? place(tenant.waiting, item) : 0;
    if (tenant?.waiting[at] !== item) return false;
    this.#takeAt(tenant, at);
    this.#rest();
    return true;
  }

  /** The next one, with its key's tag; undefined when none waits. */
  take(): { item: T; tag: number } | undefined {
    const tenant = this.#least();
    const item = tenant?.waiting[0];
    if (!tenant || !item) return undefined;
    this.#takeAt(tenant, 0);
    const { tag } = tenant;
    const charge = this.#charge(item, tenant);
    tenant.tag += charge;
    tenant.running++;
    this.#charged.set(item, charge);
    this.#chargedTotal += charge;
    const least = this.#least()?.tag;
    if (least === undefined) this.#virtualTime = Math.max(this.#virtualTime, tag);
    else this.#virtualTime = Math.max(least, Math.min(this.#virtualTime + charge / 3, least + this.#headStart));
    return { item, tag };
  }

  /** Ends one that was taken: its key pays for what it used, no longer for what was expected. */
  settle(item: T, used: Used): void {
    const tenant = this.#tenants.get(item.key);
    const charge = this.#charged.get(item);
    if (!tenant || charge === undefined) return;
    this.#charged.delete(item);
    this.#chargedTotal -= charge;
    tenant.running--;
    tenant.tag += used.promptTokens + used.completionTokens - charge;
    if (used.whole) {
      const each = used.completionTokens / item.answers;
      tenant.mean = averaged(tenant.mean, each);
      this.#mean = averaged(this.#mean, each);
    }
    this.#rest();
  }

  get #headStart(): number {
    return headStartFactor * this.#chargedTotal;
  }

  /** What a request will probably take: answers as long as the last ones of its key. */
  #charge({ promptTokens, maxTokens, answers }: T, { mean }: Tenant<T>): number {
    return promptTokens + answers * Math.min(maxTokens, mean ?? this.#mean ?? maxTokens);
  }

  #least(): Tenant<T> | undefined {
    let least: Tenant<T> | undefined;
    for (const tenant of this.#backlogged) {
      const first = tenant.waiting[0] as T;
      if (!least || tenant.tag < least.tag || (tenant.tag === least.tag && first.id < (least.waiting[0] as T).id)) {
        least = tenant;
      }
    }
    return least;
  }

  #takeAt(tenant: Tenant<T>, at: number): void {
    if (at === 0) tenant.waiting.shift();
    else tenant.waiting.splice(at, 1);
    if (tenant.waiting.length === 0) this.#backlogged.delete(tenant);
  }

  #tenant(key: string): Tenant<T> {
    let tenant = this.#tenants.get(key);
    if (!tenant) {
      if (this.#tenants.size >= this.#sweepAt) this.#forget();
      tenant = { tag: Number.NEGATIVE_INFINITY, waiting: [], running: 0, mean: undefined };
      this.#tenants.set(key, tenant);
    }
    return tenant;
  }

  /** Drops the keys that would begin anew where they are. */
  #forget(): void {
    for (const [key, tenant] of this.#tenants) {
      const idle = tenant.waiting.length === 0 && tenant.running === 0;
      if (idle && tenant.tag <= this.#virtualTime - this.#headStart) this.#tenants.delete(key);
    }
    this.#sweepAt = 64 + 2 * this.#tenants.size;
  }

  /** When all have what they want, nobody owes anything. */
  #rest(): void {
    if (this.#charged.size > 0 || this.#backlogged.size > 0) return;
    this.#tenants.clear();
    this.#virtualTime = 0;
  }
}

/** Where `item` is, or belongs, among the waiting. */
function place<T extends Orderable>(waiting: T[], item: T): number {
  let low = 0;
  let high = waiting.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const other = waiting[middle] as T;
    if (other.order < item.order || (other.order === item.order && other.id < item.id)) low = middle + 1;
    else high = middle;
  }
  return low;
}
