// The order in which waiting requests are taken: fair among keys, by aged priority within a key.
//
// Among keys: start-time fair queueing (Goyal, Vin and Cheng, 1996). A key's tag grows by the tokens of each request that is
// taken, and the key with the least tag is next; one that had nothing waiting begins at the virtual time. So keys that always
// have something waiting get even shares of tokens, whatever they send.
//
// With even shares alone a burst waits more than twice as long beside a flood as without it, since the flood already holds
// all slots. So a key that asks for less at a time goes before one that asks for more: to its tag a key adds a handicap that
// grows with its burst, what it has asked for since it last had nothing waiting, towards a multiple of what is being computed.
//
// The virtual time follows the least tag of the waiting, but moves on with the tokens given away meanwhile, so that
// newcomers, however many, cannot hold the others up for ever.

/** A request as the order sees it. */
export interface Orderable {
  /** ascending in order of arrival */
  readonly id: number;
  readonly key: string;
  /** within its key, lower goes first, then the lower id */
  readonly order: number;
  readonly promptTokens: number;
  /** of each of its completions, at most */
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
  /** tokens asked for since nothing waited */
  burst: number;
  /** the last rank it was given: later requests come after it */
  rank: number;
  /** in the order in which they are taken */
  waiting: T[];
  running: number;
  /** tokens of a completion, averaged over the last ones */
  mean: number | undefined;
}

/** The largest handicap, over the tokens of what runs. */
const handicapFactor = 8;
const clamp = (value: number, low: number, high: number) => Math.max(low, Math.min(value, high));
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

  /** how many are known */
  get keys(): number {
    return this.#tenants.size;
  }

  push(item: T): void {
    const tenant = this.#tenant(item.key);
    if (tenant.waiting.length === 0) {
      tenant.tag = Math.max(tenant.tag, this.#virtualTime);
      tenant.burst = 0;
      this.#backlogged.add(tenant);
    }
    tenant.burst += this.#charge(item, tenant);
    tenant.waiting.splice(insertionIndex(tenant.waiting, item), 0, item);
  }

  /** Takes out one that waits and shall not run; false when it does not wait. */
  remove(item: T): boolean {
    const tenant = this.#tenants.get(item.key);
    const at = tenant ? insertionIndex(tenant.waiting, item) : 0;
    if (tenant?.waiting[at] !== item) return false;
    this.#takeAt(tenant, at);
    this.#rest();
    return true;
  }

  /** The next one, with its rank among all that were taken, lower first; undefined when none waits. */
  take(): { item: T; rank: number } | undefined {
    const tenant = this.#next();
    const item = tenant?.waiting[0];
    if (!tenant || !item) return undefined;
    const { tag } = tenant;
    const rank = Math.max(tenant.rank, this.#place(tenant));
    tenant.rank = rank;
    const share = 1 / (this.#backlogged.size + 1);
    this.#takeAt(tenant, 0);
    const charge = this.#charge(item, tenant);
    tenant.tag += charge;
    tenant.running++;
    this.#charged.set(item, charge);
    this.#chargedTotal += charge;
    let least = Number.POSITIVE_INFINITY;
    for (const other of this.#backlogged) least = Math.min(least, other.tag);
    if (least === Number.POSITIVE_INFINITY) this.#virtualTime = Math.max(this.#virtualTime, tag);
    else this.#virtualTime = clamp(this.#virtualTime + charge * share, least, least + this.#largestHandicap);
    return { item, rank };
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

  get #largestHandicap(): number {
    return handicapFactor * this.#chargedTotal;
  }

  #place({ tag, burst }: Tenant<T>): number {
    const most = this.#largestHandicap;
    return most > 0 ? tag + (most * burst) / (most + burst) : tag;
  }

  /** What a request will probably take: completions as long as the last ones of its key. */
  #charge({ promptTokens, maxTokens, answers }: T, { mean }: Tenant<T>): number {
    return promptTokens + answers * Math.min(maxTokens, mean ?? this.#mean ?? maxTokens);
  }

  #next(): Tenant<T> | undefined {
    let next: { tenant: Tenant<T>; place: number; id: number } | undefined;
    for (const tenant of this.#backlogged) {
      const place = this.#place(tenant);
      const { id } = tenant.waiting[0] as T;
      if (!next || place < next.place || (place === next.place && id < next.id)) next = { tenant, place, id };
    }
    return next?.tenant;
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
      const none = Number.NEGATIVE_INFINITY;
      tenant = { tag: none, rank: none, burst: 0, waiting: [], running: 0, mean: undefined };
      this.#tenants.set(key, tenant);
    }
    return tenant;
  }

  /** Drops the keys that would begin anew where they are. */
  #forget(): void {
    for (const [key, tenant] of this.#tenants) {
      const idle = tenant.waiting.length === 0 && tenant.running === 0;
      if (idle && tenant.tag <= this.#virtualTime) this.#tenants.delete(key);
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
function insertionIndex<T extends Orderable>(waiting: T[], item: T): number {
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
