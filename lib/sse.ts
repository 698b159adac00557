// Server-sent events on a response of Node: headers, comments while nothing is said, backpressure, hang-ups.

/** What is needed of a response: that of node:http, node:http2's compatibility API, Express, or Fastify's `reply.raw`. */
export interface ServerResponseLike {
  readonly destroyed: boolean;
  writeHead(status: number, headers: Record<string, string>): unknown;
  write(text: string): boolean;
  end(text?: string): unknown;
  on(name: "close" | "drain", listener: () => void): unknown;
  off(name: "close" | "drain", listener: () => void): unknown;
}

export const streamHeaders = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  // nginx would collect the events.
  "x-accel-buffering": "no",
};

/** To whoever listens: nothing, but a sign that the connection lives. */
export const comment = ":\n\n";

export interface EventWriterOptions {
  /** milliseconds without an event after which a comment is sent; 0 for never */
  heartbeatMs: number;
  /** what is sent in its place */
  heartbeat?: string | undefined;
  /** the client hung up, if only after the end */
  onClose(): void;
  /** milliseconds in which a client takes nothing before `onStall` is called; by default it is never */
  stallMs?: number;
  onStall?(): void;
}

/** Characters that wait for the end of a turn of the event loop at most. */
const mostPending = 16_384;

/** Writes events as fast as the client reads them; those of one turn of the event loop in one piece. */
export class EventWriter {
  readonly #response: ServerResponseLike;
  readonly #options: EventWriterOptions;
  #beat: NodeJS.Timeout | undefined;
  #pending = "";
  /** until more can be written */
  #full: Promise<void> | undefined;
  #gone = false;

  constructor(response: ServerResponseLike, options: EventWriterOptions) {
    this.#response = response;
    this.#options = options;
    response.on("close", this.#hangUp);
    if (response.destroyed) this.#hangUp();
  }

  /** whether nobody listens any more */
  get gone(): boolean {
    return this.#gone;
  }

  /** Answers with status 200; from here on comments go out while nothing else does. */
  open(headers: Record<string, string> = {}): void {
    if (this.#gone) return;
    const { heartbeatMs, heartbeat = comment } = this.#options;
    this.#response.writeHead(200, { ...headers, ...streamHeaders });
    if (heartbeatMs > 0) this.#beat = setInterval(() => this.#full || this.#response.write(heartbeat), heartbeatMs);
  }

  /** A promise where the client is behind: it resolves once more can be written, or nobody listens. */
  write(text: string): Promise<void> | undefined {
    if (this.#gone) return undefined;
    if (this.#pending === "") process.nextTick(this.#flush);
    this.#pending += text;
    if (this.#pending.length >= mostPending) this.#flush();
    return this.#full;
  }

  /** Resolves once all is written, though it may not be read, or nobody listens. */
  async end(): Promise<void> {
    clearInterval(this.#beat);
    if (this.#full) {
      this.#flush();
      await this.#full;
    }
    if (!this.#gone) this.#response.end(this.#pending);
    this.#pending = "";
  }

  /** Listens no longer for hang-ups. */
  release(): void {
    clearInterval(this.#beat);
    this.#response.off("close", this.#hangUp);
  }

  readonly #flush = (): void => {
    const text = this.#pending;
    if (text === "" || this.#gone) return;
    this.#pending = "";
    this.#beat?.refresh();
    if (!this.#response.write(text)) this.#full ??= this.#drained();
  };

  async #drained(): Promise<void> {
    const { stallMs, onStall } = this.#options;
    const timer = stallMs !== undefined && onStall ? setTimeout(onStall, stallMs) : undefined;
    await writable(this.#response);
    clearTimeout(timer);
    this.#full = undefined;
  }

  readonly #hangUp = (): void => {
    this.#gone = true;
    clearInterval(this.#beat);
    this.#options.onClose();
  };
}

/** Until more can be written, or nobody listens. */
function writable(response: ServerResponseLike): Promise<void> {
  return new Promise((resolve) => {
    const go = () => {
      response.off("drain", go);
      response.off("close", go);
      resolve();
    };
    response.on("drain", go);
    response.on("close", go);
    if (response.destroyed) go();
  });
}
