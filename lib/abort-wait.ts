// What is waited for and may be given up.
import { onAbort } from "./signals.js";

/** Hears an AbortSignal while something is waited for. */
export class AbortWait {
  readonly #signal: AbortSignal | undefined;
  readonly #stopListening: () => void;
  readonly #late: Promise<never>;
  #timer: NodeJS.Timeout | undefined;

  constructor(signal: AbortSignal | undefined, cancel: () => void) {
    this.#signal = signal;
    let late = () => {};
    this.#late = new Promise((_, reject) => {
      late = () => reject(signal?.reason);
    });
    this.#late.catch(() => {});
    this.#stopListening = onAbort(signal, () => {
      cancel();
      // What is cancelled ends soon and has then freed all; a device or disk that does not answer is not waited for.
      this.#timer = setTimeout(late, 50);
    });
  }

  race<T>(work: Promise<T>): Promise<T> {
    return this.#signal ? Promise.race([work, this.#late]) : work;
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#stopListening();
  }
}
