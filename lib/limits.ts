// How much a caller may pass. Lists and texts that a request carries cost everybody who runs beside it, so each has a
// bound; docs/api.md lists them.

/** In entries, or in characters where a text is meant. */
export const bounds = {
  /** `stop`: strings, and UTF-8 bytes of each */
  stop: 64,
  stopBytes: 1024,
  /** `stopTokens`, as given */
  stopTokens: 256,
  /** `suppress`, as given */
  suppress: 1024,
  /** `logitBias`: token ids */
  logitBias: 1024,
  messages: 4096,
  role: 64,
  /** `format` as JSON, values in it, and its choices */
  form: 2 ** 20,
  formValues: 2 ** 15,
  choices: 30_000,
  /** whose probabilities are told */
  scoredChoices: 64,
  /** `tools`, calls of a message, and what a call's id has */
  tools: 128,
  callId: 256,
  key: 256,
  salt: 1024,
  /** a path, a hub id, or the name of an instruction set */
  path: 4096,
  /** levels of lists and objects in options, names in one of these, characters of a name, and entries of them all together */
  depth: 32,
  names: 256,
  nameCharacters: 2 ** 16,
  values: 20_000,
} as const;

/** What the engine lets wait, and how long, unless `Engine.load` is told otherwise. */
export const queueDefaults = {
  maxRequests: 4096,
  maxTokens: Number.MAX_SAFE_INTEGER,
  maxBytes: 2 ** 28,
  agingMs: 1000,
  maxHeld: 256,
  heldMs: 60_000,
} as const;

/** Milliseconds that the native side has for ending what was aborted or is too late, before it is ended without it. */
export const answerMs = 50;

/** Whether a file system could take it. */
export const isPath = (v: unknown): v is string =>
  typeof v === "string" && v !== "" && v.length <= bounds.path && !v.includes("\0");
