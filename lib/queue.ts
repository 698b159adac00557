// Admission: who waits, for how long, and who is submitted to the native side next.
import { BusyRate, type Clock } from "./clock.js";
import { SdarError } from "./errors.js";
import { FairOrder, type Orderable, type Taken, type Used } from "./fair-order.js";

export interface QueueLimits {
  maxRequests: number;
  maxTokens: number;
  maxBytes: number;
  /** a priority is worth so many milliseconds of waiting */
  agingMs: number;
}

/** A request to be queued. */
export interface Ticket {
  readonly id: number;
  readonly key: string;
  readonly priority: number;
  readonly promptTokens: number;
  readonly maxTokens: number;
  readonly answers: number;
  readonly blockLength: number;
  /** what it keeps while it waits */
  readonly bytes: number;
  /** by the clock, when it must be answered; infinite when that does not matter */
  readonly dueAt: number;
  /** Submits it, with its rank in the native order, its key's number and what is left until its deadline, 0 for none. */
  start(rank: number, tenant: number, deadlineMs: number): void;
  /** Lets it go on after hold() and release(). */
  resume(): void;
  /** Its deadline passed while it waited. */
  expire(): void;
}

interface Entry extends Orderable {
  readonly ticket: Ticket;
  stopTimer(): void;
  /** completions submitted and not ended */
  live: number;
  /** they have no places */
  held: boolean;
}

/** Work submitted beyond what can run, so that a blocked event loop does not idle the device. */
const aheadMs = 250;
const maxAhead = 1024;

export class AdmissionQueue {
  readonly #limits: QueueLimits;
  readonly #maxConcurrent: number;
  readonly #clock: Clock;
  readonly #order = new FairOrder<Entry>();
  readonly #entries = new Map<Ticket, Entry>();
  /** of each key with any: completions submitted, not ended and not held */
  readonly #places = new Map<string, number>();
  readonly #rate = new BusyRate(2000);
  /** completions submitted, not ended and not held */
  #running = 0;
  #pumping = false;
  #closed = false;
  readonly #counts = { requests: 0, tokens: 0, bytes: 0, rejected: 0, timedOut: 0, aborted: 0 };

  constructor(limits: QueueLimits, maxConcurrent: number, clock: Clock) {
    this.#limits = limits;
    this.#maxConcurrent = maxConcurrent;
    this.#clock = clock;
  }

  /** Waiting now, and counts of those that never ran. */
  get counts() {
    return { ...this.#counts };
  }

  /** Lets a request wait; pump() takes it further. Throws QUEUE_FULL. */
  add(ticket: Ticket): void {
    const now = this.#clock.now();
    this.#checkRoom(ticket);
    const { id, key, promptTokens, maxTokens, answers, blockLength, dueAt } = ticket;
    // What all waiting requests gain with time alike need not be counted: a priority is an earlier arrival.
    const order = now - ticket.priority * this.#limits.agingMs;
    const stopTimer = Number.isFinite(dueAt) ? this.#clock.after(dueAt - now, () => this.#expire(ticket)) : () => {};
    const size = { promptTokens, maxTokens, answers, blockLength };
    const entry = { id, key, order, ...size, ticket, stopTimer, live: 0, held: false };
    this.#entries.set(ticket, entry);
    this.#order.push(entry);
    this.#count(ticket, 1);
  }

  /** Submits what fits. Call whenever something was added or ended. */
  pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      while (!this.#closed) {
        const next = this.#order.take(this.#belowShare) ?? (this.#hasSlot ? this.#order.take() : undefined);
        if (!next) break;
        if (next.returned) this.#resume(next.item);
        else this.#start(next);
      }
    } finally {
      this.#pumping = false;
    }
  }

  #start({ item, rank, tenant }: Taken<Entry>): void {
    const { ticket } = item;
    item.stopTimer();
    this.#count(ticket, -1);
    const left = ticket.dueAt - this.#clock.now();
    if (left <= 0) {
      this.#counts.timedOut++;
      ticket.expire();
      return;
    }
    this.#advance();
    item.live = ticket.answers;
    this.#occupy(item);
    ticket.start(rank, tenant, Number.isFinite(left) ? left : 0);
  }

  #resume(item: Entry): void {
    this.#advance();
    item.held = false;
    this.#occupy(item);
    item.ticket.resume();
  }

  /** A request that runs gives its places back. */
  hold(ticket: Ticket): void {
    const entry = this.#entries.get(ticket);
    if (!entry) return;
    if (entry.held) {
      this.#order.remove(entry);
      return;
    }
    this.#advance();
    entry.held = true;
    this.#free(entry.key, entry.live);
  }

  #occupy({ key, live }: Entry): void {
    this.#running += live;
    this.#places.set(key, (this.#places.get(key) ?? 0) + live);
  }

  #free(key: string, count: number): void {
    this.#running -= count;
    const left = (this.#places.get(key) ?? 0) - count;
    if (left > 0) this.#places.set(key, left);
    else this.#places.delete(key);
  }

  /**
   * Keys share places evenly, too, or those whose requests take longest would in the end have all of them. One with less
   * than its share need not wait for a place: the native side takes it from a key that has more.
   */
  #belowShare = (key: string): boolean => {
    const own = this.#places.get(key) ?? 0;
    const { size } = this.#places;
    return own + 1 <= this.#maxConcurrent / (own > 0 ? size : size + 1);
  };

  /** One that was held wants its places again, before others of its key; pump() takes it further. */
  release(ticket: Ticket): void {
    const entry = this.#entries.get(ticket);
    if (entry?.held && entry.live > 0) this.#order.return(entry);
  }

  /** A request that runs has cost so much by now. */
  progress(ticket: Ticket, cost: number): void {
    const entry = this.#entries.get(ticket);
    if (entry) this.#order.progress(entry, cost);
  }

  /** Takes out a request that waits; false when it does not. */
  cancel(ticket: Ticket): boolean {
    const left = this.#leave(ticket);
    if (left) this.#counts.aborted++;
    return left;
  }

  /** One completion of a request that was submitted has ended natively. */
  answerEnded(ticket: Ticket): void {
    this.#end(ticket, 1);
  }

  /** So many completions of one that was submitted were refused. */
  notStarted(ticket: Ticket, answers: number): void {
    this.#end(ticket, answers, 0);
  }

  #end(ticket: Ticket, answers: number, ended = answers): void {
    const entry = this.#entries.get(ticket);
    if (!entry) return;
    entry.live -= answers;
    if (entry.held) return;
    this.#advance(ended);
    this.#free(entry.key, answers);
  }

  /** A request is over: it does not wait any more, for the first time or again. */
  settleWaiting(ticket: Ticket): void {
    const entry = this.#entries.get(ticket);
    if (entry?.held) this.#order.remove(entry);
    else this.#leave(ticket);
  }

  /** A request is over, and the native side has none of its completions. */
  settle(ticket: Ticket, used: Used): void {
    const entry = this.#entries.get(ticket);
    if (!entry) return;
    this.settleWaiting(ticket);
    this.#entries.delete(ticket);
    this.#order.settle(entry, used);
  }

  /** Submits nothing any more. */
  close(): void {
    this.#closed = true;
  }

  get #hasSlot(): boolean {
    const ahead = Math.ceil(aheadMs * this.#rate.perMs);
    return this.#running < this.#maxConcurrent + Math.min(maxAhead, Math.max(2, ahead));
  }

  #advance(ended = 0): void {
    this.#rate.advance(this.#clock.now(), this.#running >= this.#maxConcurrent, ended);
  }

  #expire(ticket: Ticket): void {
    if (!this.#leave(ticket)) return;
    this.#counts.timedOut++;
    ticket.expire();
  }

  #leave(ticket: Ticket): boolean {
    const entry = this.#entries.get(ticket);
    if (!entry || entry.held || !this.#order.remove(entry)) return false;
    entry.stopTimer();
    this.#count(ticket, -1);
    return true;
  }

  #count(ticket: Ticket, sign: 1 | -1): void {
    this.#counts.requests += sign * ticket.answers;
    this.#counts.tokens += sign * size(ticket);
    this.#counts.bytes += sign * ticket.bytes;
  }

  /** Also what was full before a request came here. */
  countRejected(): void {
    this.#counts.rejected++;
  }

  /** Whether `add` would take it. */
  hasRoomFor(ticket: Ticket): boolean {
    // What is submitted at once does not wait.
    if (this.#counts.requests === 0 && this.#hasSlot) return true;
    if (this.#belowShare(ticket.key)) return true;
    return !this.#waitingWith(ticket).some(({ now, more, option }) => now + more > this.#limits[option]);
  }

  /** What waits now, and how much more that would be. */
  #waitingWith(ticket: Ticket) {
    return [
      { what: "requests", now: this.#counts.requests, more: ticket.answers, option: "maxRequests" },
      { what: "tokens", now: this.#counts.tokens, more: size(ticket), option: "maxTokens" },
      { what: "bytes", now: this.#counts.bytes, more: ticket.bytes, option: "maxBytes" },
    ] as const;
  }

  #checkRoom(ticket: Ticket): void {
    if (this.hasRoomFor(ticket)) return;
    const waiting = this.#waitingWith(ticket);
    const full = waiting.find(({ now, more, option }) => now + more > this.#limits[option]);
    if (!full) return;
    this.countRejected();
    const what = `${full.now} ${full.what} wait`;
    const limit = `queue.${full.option} is ${this.#limits[full.option]}`;
    // The part of the queue that has to leave.
    const parts = waiting.map(({ now, more, option }) => (now > 0 ? (now + more - this.#limits[option]) / now : 0));
    const retryAfterMs = this.#retryAfterMs(Math.max(...parts));
    const message = `the queue is full: ${what}, ${limit}; try again in about ${retryAfterMs} ms`;
    throw new SdarError("QUEUE_FULL", message, { retryAfterMs });
  }

  /** Until half of the queue has gone, or what has to for this one: sooner, all who were rejected would meet again. */
  #retryAfterMs(part: number): number {
    const leaving = Math.max(1, this.#counts.requests * Math.min(1, Math.max(1 / 2, part)));
    const perMs = this.#rate.perMs;
    return perMs > 0 ? Math.round(Math.min(60_000, Math.max(50, leaving / perMs))) : 1000;
  }
}

const size = ({ promptTokens, maxTokens, answers }: Ticket) => promptTokens + answers * maxTokens;
