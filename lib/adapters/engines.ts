// Engines for adapters: given, or loaded from a path on first use and shared by all that name the same.
import { Engine } from "../engine.js";
import { invalidOption, SdarError } from "../errors.js";
import { isAborted, onAbort } from "../signals.js";
import type { LoadOptions } from "../types.js";

/** Engines loaded with the same options, by path. */
export class Engines {
  readonly #load: LoadOptions | undefined;
  readonly #loaded = new Map<string, Promise<Engine>>();

  constructor(load?: LoadOptions) {
    this.#load = load;
  }

  /** The engine of a path, loaded now if nobody asked before. A load that failed is tried again by the next call. */
  get(path: string): Promise<Engine> {
    const known = this.#loaded.get(path);
    if (known) return known;
    const loading = Engine.load(path, this.#load);
    this.#loaded.set(path, loading);
    loading.catch(() => this.#loaded.delete(path));
    return loading;
  }

  /** Frees all that was loaded; what is asked for later is loaded anew. */
  async dispose(): Promise<void> {
    const all = [...this.#loaded.values()];
    this.#loaded.clear();
    for (const result of await Promise.allSettled(all)) if (result.status === "fulfilled") await result.value.dispose();
  }
}

/** What adapters have loaded without options of their own. */
export const sharedEngines = new Engines();

/** A path, a hub id, or an engine; throws INVALID_OPTION for anything else. */
export function checkModel(option: string, model: unknown): asserts model is string | Engine {
  const { generate } = Object(model) as { generate?: unknown };
  if (typeof model === "string" ? model === "" : typeof generate !== "function")
    throw invalidOption(option, model, "a folder, a hub id or an Engine");
}

/** The engine that `model` is or names. Aborting gives up waiting; a load that others may wait for goes on. */
export function engineOf(model: string | Engine, engines: Engines, signal?: AbortSignal): Engine | Promise<Engine> {
  if (typeof model !== "string") return model;
  const loading = engines.get(model);
  if (!signal) return loading;
  return new Promise((resolve, reject) => {
    const aborted = () =>
      reject(new SdarError("ABORTED", "waiting for the model was aborted", { cause: signal.reason }));
    if (isAborted(signal)) return aborted();
    const stop = onAbort(signal, aborted);
    loading.then(resolve, reject).finally(stop);
  });
}
