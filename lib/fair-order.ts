// The order in which waiting requests are taken: fair among keys, by aged priority within a key.
//
// Among keys: start-time fair queueing (Goyal, Vin and Cheng, 1996). A key's tag grows by the cost of each request that is
// taken, and the key with the least tag is next; one that had nothing waiting begins at the virtual time. So keys that always
// have something waiting get even shares, whatever they send.
//
// What a request costs is counted in rows and steps that it takes, not in tokens: those of a block of 64 that is filled one
// position at a time cost as much as many times their number elsewhere.
//
// With even shares alone a burst waits more than twice as long beside a flood as without it, since the flood already holds
// all slots. So a key that asks for less at a time goes before one that asks for more: to its tag a key adds a handicap that
// grows with its burst, what it has asked for since it last had nothing waiting, towards a multiple of what is being computed.
//
// The virtual time follows the least tag of the waiting, but moves on with what is given away meanwhile, so that
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
  readonly blockLength: number;
}

/** What became of a request that was taken; `whole` unless it was cut short. */
export interface Used {
  /** of all that was computed for it, and of its prompt alone: see costOf */
  cost: number;
  promptCost: number;
  completionTokens: number;
  whole: boolean;
}

/** A slot costs, for each step, about as much as so many rows: it is not another's. */
const rowsPerStep = 8;
export const costOf = (rows: number, steps: number) => rows + rowsPerStep * steps;

interface Tenant<T> {
  /** unique, for the native side */
  readonly number: number;
  tag: number;
  /** requests since nothing waited */
  burst: number;
  /** the last rank it was given: later requests come after it */
  rank: number;
  /** in the order in which they are taken */
  waiting: T[];
  /** taken before, and let go on: before all that wait */
  readonly returning: Set<T>;
  running: number;
  /** of a completion, averaged over the last ones: its tokens, and the cost of each over that of a block's step */
  tokens: number | undefined;
  perToken: number | undefined;
}

/** What was taken: its rank among all that were, lower first, and its key's number. */
export interface Taken<T> {
  item: T;
  rank: number;
  tenant: number;
  /** it had been taken before */
  returned: boolean;
}

/** Until it is known: two tokens a forward. */
const usualPerToken = 0.5;
/** The largest handicap, over the cost of what runs. */
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
  #tokens: number | undefined;
  #perToken: number | undefined;
  #numbers = 0;
  #sweepAt = 64;

  /** how many are known */
  get keys(): number {
    return this.#tenants.size;
  }

  push(item: T): void {
    const tenant = this.#tenant(item.key);
    this.#wants(tenant);
    if (tenant.waiting.length === 0) tenant.burst = 0;
    tenant.burst++;
    tenant.waiting.splice(insertionIndex(tenant.waiting, item), 0, item);
  }

  /** One that was taken and gave its place back wants it again. Its key has been charged for it. */
  return(item: T): void {
    const tenant = this.#tenant(item.key);
    this.#wants(tenant);
    tenant.returning.add(item);
  }

  /** Takes out one that waits and shall not run; false when it does not wait. */
  remove(item: T): boolean {
    const tenant = this.#tenants.get(item.key);
    if (tenant?.returning.delete(item)) {
      this.#leave(tenant);
      return true;
    }
    const at = tenant ? insertionIndex(tenant.waiting, item) : 0;
    if (tenant?.waiting[at] !== item) return false;
    this.#takeAt(tenant, at);
    this.#rest();
    return true;
  }

  /** The next one of the keys that may have one; undefined when none waits. */
  take(may: (key: string) => boolean = () => true): Taken<T> | undefined {
    const tenant = this.#next(may);
    if (!tenant) return undefined;
    for (const item of tenant.returning) {
      tenant.returning.delete(item);
      this.#leave(tenant);
      return { item, rank: tenant.rank, tenant: tenant.number, returned: true };
    }
    const item = tenant.waiting[0] as T;
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
    return { item, rank, tenant: tenant.number, returned: false };
  }

  /** One that was taken has cost so much by now: its key pays at once for more than was expected. */
  progress(item: T, cost: number): void {
    const more = cost - (this.#charged.get(item) ?? cost);
    const tenant = this.#tenants.get(item.key);
    if (more <= 0 || !tenant) return;
    tenant.tag += more;
    this.#charged.set(item, cost);
    this.#chargedTotal += more;
  }

  /** Ends one that was taken: its key pays for what it used, no longer for what was expected. */
  settle(item: T, used: Used): void {
    const tenant = this.#tenants.get(item.key);
    const charge = this.#charged.get(item);
    if (!tenant || charge === undefined) return;
    this.#charged.delete(item);
    this.#chargedTotal -= charge;
    tenant.running--;
    tenant.tag += used.cost - charge;
    if (used.whole) {
      const each = used.completionTokens / item.answers;
      tenant.tokens = averaged(tenant.tokens, each);
      this.#tokens = averaged(this.#tokens, each);
    }
    if (used.completionTokens > 0) {
      const most = used.completionTokens * costOf(item.blockLength, 1);
      const perToken = Math.max(0, used.cost - used.promptCost) / most;
      tenant.perToken = averaged(tenant.perToken, perToken);
      this.#perToken = averaged(this.#perToken, perToken);
    }
    this.#rest();
  }

  get #largestHandicap(): number {
    return handicapFactor * this.#chargedTotal;
  }

  #place(tenant: Tenant<T>): number {
    const most = this.#largestHandicap;
    const [next] = tenant.waiting;
    if (most === 0 || !next || tenant.returning.size > 0) return tenant.tag;
    const burst = tenant.burst * this.#charge(next, tenant);
    return tenant.tag + (most * burst) / (most + burst);
  }

  /** What a request will probably cost: completions as long, and as costly for their blocks, as the last ones of its key. */
  #charge({ promptTokens, maxTokens, answers, blockLength }: T, { tokens, perToken }: Tenant<T>): number {
    const each = Math.min(maxTokens, tokens ?? this.#tokens ?? maxTokens);
    return promptTokens + answers * each * costOf(blockLength, 1) * (perToken ?? this.#perToken ?? usualPerToken);
  }

  /** A key with nothing waiting begins at the virtual time. */
  #wants(tenant: Tenant<T>): void {
    if (this.#backlogged.has(tenant)) return;
    tenant.tag = Math.max(tenant.tag, this.#virtualTime);
    this.#backlogged.add(tenant);
  }

  #leave(tenant: Tenant<T>): void {
    if (tenant.waiting.length === 0 && tenant.returning.size === 0) this.#backlogged.delete(tenant);
  }

  #next(may: (key: string) => boolean): Tenant<T> | undefined {
    let next: { tenant: Tenant<T>; place: number; id: number } | undefined;
    for (const tenant of this.#backlogged) {
      const [returning] = tenant.returning;
      const { id, key } = returning ?? (tenant.waiting[0] as T);
      if (!may(key)) continue;
      const place = this.#place(tenant);
      if (!next || place < next.place || (place === next.place && id < next.id)) next = { tenant, place, id };
    }
    return next?.tenant;
  }

  #takeAt(tenant: Tenant<T>, at: number): void {
    if (at === 0) tenant.waiting.shift();
    else tenant.waiting.splice(at, 1);
    this.#leave(tenant);
  }

  #tenant(key: string): Tenant<T> {
    let tenant = this.#tenants.get(key);
    if (!tenant) {
      if (this.#tenants.size >= this.#sweepAt) this.#forget();
      const none = Number.NEGATIVE_INFINITY;
      const number = ++this.#numbers;
      const nothing = { burst: 0, running: 0, tokens: undefined, perToken: undefined };
      tenant = { ...nothing, number, tag: none, rank: none, waiting: [], returning: new Set() };
      this.#tenants.set(key, tenant);
    }
    return tenant;
  }

  /** Drops the keys that would begin anew where they are. */
  #forget(): void {
    for (const [key, tenant] of this.#tenants) {
      const idle = !this.#backlogged.has(tenant) && tenant.running === 0;
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
