// Shows what comes at a pace that eyes can follow: the engine is often faster.

export class Player {
  #view;
  #pace;
  #queue = [];
  #blocks = new Set();
  #timer;
  #ended = false;
  #onShow;
  #resolve;
  /** resolves once all was shown, or it was stopped */
  done = new Promise((resolve) => {
    this.#resolve = resolve;
  });

  /** `pace`: gives the milliseconds from one forward to the next; 0 shows at once. `onShow` is called after each. */
  constructor(view, pace, onShow = () => {}) {
    this.#view = view;
    this.#pace = pace;
    this.#onShow = onShow;
    view.element.setAttribute("aria-busy", "true");
  }

  /** A moment: `{ draft }` or `{ tokens, text }`. */
  push(moment) {
    const { draft } = moment;
    if (draft && !this.#blocks.has(draft.block)) {
      this.#blocks.add(draft.block);
      this.#queue.push({ mask: draft });
    }
    this.#queue.push(moment);
    this.#go();
  }

  /** Nothing more will be pushed. */
  end() {
    this.#ended = true;
    this.#go();
  }

  /** What was shown stays, the rest does not come. */
  stop() {
    this.#queue = [];
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.end();
  }

  #go() {
    if (this.#timer !== undefined) return;
    while (this.#queue.length > 0) {
      const moment = this.#queue.shift();
      this.#show(moment);
      // Of a model that denoises blocks the steps are what takes time; final tokens belong to the last one.
      const waits = moment.mask || moment.draft || !this.#view.blocks;
      const pace = waits ? this.#pace() : 0;
      if (pace > 0) {
        this.#timer = setTimeout(() => {
          this.#timer = undefined;
          this.#go();
        }, pace);
        return;
      }
    }
    if (!this.#ended) return;
    this.#view.settle();
    this.#resolve();
  }

  #show({ mask, draft, tokens, text }) {
    if (mask) this.#view.mask(mask);
    else if (draft) this.#view.draft(draft);
    else this.#view.final(tokens, text);
    this.#onShow();
  }
}
