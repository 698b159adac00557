// Admission: who waits, for how long, and who is submitted to the native side next.
import { BusyRate, type Clock } from "./clock.js";
import { SdarError } from "./errors.js";
import { FairOrder, type Orderable, type Used } from "./fair-order.js";

export interface QueueLimits {
  maxRequests: number;
  maxTokens: number;
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
  /** by the clock, when it must be answered; infinite when that does not matter */
  readonly dueAt: number;
  /** Submits it, with its rank in the native order and what is left until its deadline, 0 for none. */
  start(rank: number, deadlineMs: number): void;
  /** Its deadline passed while it waited. */
  expire(): void;
}

interface Entry extends Orderable {
  readonly ticket: Ticket;
  stopTimer(): void;
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
  readonly #rate = new BusyRate(2000);
  /** completions submitted and not ended */
  #running = 0;
  #pumping = false;
  #closed = false;
  readonly #counts = { requests: 0, tokens: 0, rejected: 0, timedOut: 0, aborted: 0 };

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
    const { id, key, promptTokens, maxTokens, answers, dueAt } = ticket;
    // What all waiting requests gain with time alike need not be counted: a priority is an earlier arrival.
    const order = now - ticket.priority * this.#limits.agingMs;
    const stopTimer = Number.isFinite(dueAt) ? this.#clock.after(dueAt - now, () => this.#expire(ticket)) : () => {};
    const entry = { id, key, order, promptTokens, maxTokens, answers, ticket, stopTimer };
    this.#entries.set(ticket, entry);
    this.#order.push(entry);
    this.#count(ticket, 1);
  }

  /** Submits what fits. Call whenever something was added or ended. */
  pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      while (!this.#closed && this.#hasSlot) {
        const next = this.#order.take();
        if (!next) break;
        const { item, rank } = next;
        const { ticket } = item;
        item.stopTimer();
        this.#count(ticket, -1);
        const left = ticket.dueAt - this.#clock.now();
        if (left <= 0) {
          this.#counts.timedOut++;
          ticket.expire();
          continue;
        }
        this.#advance();
        this.#running += ticket.answers;
        ticket.start(rank, Number.isFinite(left) ? left : 0);
      }
    } finally {
      this.#pumping = false;
    }
  }

  /** Takes out a request that waits; false when it does not. */
  cancel(ticket: Ticket): boolean {
    const left = this.#leave(ticket);
    if (left) this.#counts.aborted++;
    return left;
  }

  /** One completion of a request that was submitted has ended natively. */
  answerEnded(): void {
    this.#advance(1);
    this.#running--;
  }

  /** So many completions of one that was submitted were refused. */
  notStarted(answers: number): void {
    this.#running -= answers;
  }

  /** A request is over, whether or not it was ever submitted. */
  settle(ticket: Ticket, used: Used): void {
    const entry = this.#entries.get(ticket);
    if (!entry) return;
    this.#leave(ticket);
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
    if (!entry || !this.#order.remove(entry)) return false;
    entry.stopTimer();
    this.#count(ticket, -1);
    return true;
  }

  #count(ticket: Ticket, sign: 1 | -1): void {
    this.#counts.requests += sign * ticket.answers;
    this.#counts.tokens += sign * size(ticket);
  }

  #checkRoom(ticket: Ticket): void {
    // What is submitted at once does not wait.
    if (this.#counts.requests === 0 && this.#hasSlot) return;
    const { maxRequests, maxTokens } = this.#limits;
    const { requests, tokens } = this.#counts;
    const excess = { requests: requests + ticket.answers - maxRequests, tokens: tokens + size(ticket) - maxTokens };
    if (excess.requests <= 0 && excess.tokens <= 0) return;
    this.#counts.rejected++;
    const [what, limit] =
      excess.requests > 0
        ? [`${requests} requests wait`, `queue.maxRequests is ${maxRequests}`]
        : [`${tokens} tokens wait`, `queue.maxTokens is ${maxTokens}`];
    const retryAfterMs = this.#retryAfterMs(excess);
    const message = `the queue is full: ${what}, ${limit}; try again in about ${retryAfterMs} ms`;
    throw new SdarError("QUEUE_FULL", message, { retryAfterMs });
  }

  /** Until half of the queue has gone, or what has to for this one: sooner, all who were rejected would meet again. */
  #retryAfterMs(excess: { requests: number; tokens: number }): number {
    const { requests, tokens } = this.#counts;
    const tokensEach = tokens > 0 ? tokens / requests : 1;
    const leaving = Math.max(requests / 2, excess.requests, excess.tokens / tokensEach);
    const perMs = this.#rate.perMs;
    return perMs > 0 ? Math.round(Math.min(60_000, Math.max(50, leaving / perMs))) : 1000;
  }
}

const size = ({ promptTokens, maxTokens, answers }: Ticket) => promptTokens + answers * maxTokens;
