// The models that a server has, by the names that clients know them by.
import { Engine } from "../engine.js";
import { SdarError, wrapError } from "../errors.js";
import type { LoadOptions } from "../types.js";
import { ApiError, badField } from "./problem.js";

/** A model that the server loads, and disposes of when it closes. */
export interface ModelToLoad extends LoadOptions {
  /** as `Engine.load` takes it */
  path: string;
}

/** By name: an engine, which stays its owner's, or a model to load. */
export type ServedModels = Readonly<Record<string, Engine | ModelToLoad | string>>;

/** A model that has been asked for and may be used. */
export interface ServedModel {
  readonly name: string;
  readonly engine: Engine;
  /** seconds since 1970 */
  readonly created: number;
}

interface Entry {
  readonly name: string;
  readonly created: number;
  engine: Engine | undefined;
  error: SdarError | undefined;
}

export class ModelRegistry {
  readonly #entries = new Map<string, Entry>();
  readonly #owned = new Set<Engine>();
  readonly #closing = new AbortController();
  /** all are loaded; rejects with the first SdarError that says why one is not */
  readonly loaded: Promise<void>;

  /** `attach` is called with each model once it can be used. */
  constructor(models: ServedModels, attach: (model: ServedModel) => void) {
    const created = Math.floor(Date.now() / 1000);
    const loads = Object.entries(models).map(async ([name, given]) => {
      const entry: Entry = { name, created, engine: undefined, error: undefined };
      this.#entries.set(name, entry);
      try {
        entry.engine = given instanceof Engine ? given : await this.#load(given);
        attach({ name, created, engine: entry.engine });
      } catch (error) {
        entry.error = wrapError(error);
        throw entry.error;
      }
    });
    if (loads.length === 0) throw new SdarError("INVALID_OPTION", "models: none are given", { option: "models" });
    this.loaded = Promise.all(loads).then(() => {});
    // Who does not ask is not told.
    this.loaded.catch(() => {});
  }

  get names(): string[] {
    return [...this.#entries.keys()];
  }

  /** whether every model can be used */
  get ready(): boolean {
    return [...this.#entries.values()].every(({ engine }) => engine && failureOf(engine) === "");
  }

  /** Those that are loaded. */
  get all(): ServedModel[] {
    return [...this.#entries.values()].filter((entry): entry is Entry & ServedModel => entry.engine !== undefined);
  }

  /** The model of a name; without one, the only one there is. Throws ApiError. */
  get(name: string | null | undefined): ServedModel {
    if (name === null || name === undefined) {
      const [only, other] = this.#entries.keys();
      if (only !== undefined && other === undefined) return this.get(only);
      throw badField("model", `model: give one of ${this.names.join(", ")}`);
    }
    const entry = this.#entries.get(name);
    if (!entry) {
      const shown = name.length > 60 ? `${name.slice(0, 60)}…` : name;
      const message = `the model ${JSON.stringify(shown)} does not exist; there is ${this.names.join(", ")}`;
      throw new ApiError(404, message, { param: "model", code: "model_not_found" });
    }
    if (entry.error) throw new ApiError(503, `the model ${name} could not be loaded`, { code: "model_failed" });
    if (!entry.engine) {
      throw new ApiError(503, `the model ${name} is being loaded`, { code: "model_loading", retryAfterMs: 1000 });
    }
    return entry as Entry & ServedModel;
  }

  /** Ends loads, and what was loaded here. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.loaded.catch(() => {});
    await Promise.all([...this.#owned].map((engine) => engine.dispose()));
  }

  async #load(given: ModelToLoad | string): Promise<Engine> {
    const { path, ...options } = typeof given === "string" ? { path: given } : given;
    const engine = await Engine.load(path, { ...options, signal: this.#closing.signal });
    this.#owned.add(engine);
    return engine;
  }
}

/** Why an engine can no longer compute; "" while it can. */
function failureOf(engine: Engine): string {
  try {
    return engine.stats().failure;
  } catch {
    return "disposed"; // by its owner
  }
}
