// Request options as adapters take them: the engine's, and the members of `denoise` by their own names.
import { invalidOption } from "../errors.js";
import { denoiseNames } from "../quality.js";
import type { DenoiseOptions, GenerateOptions, RequestFields } from "../types.js";

/** What a framework says by names of its own, or what its answers have no place for. */
type Taken = "n" | "signal";

/** Options of the engine that frameworks have no names for; the engine judges them. */
export type SdarOptions = Omit<GenerateOptions, Taken | "quality" | "denoise"> &
  Pick<RequestFields, "quality" | "denoise" | "parseSpecial" | "parallelToolCalls" | "templateOptions"> &
  DenoiseOptions;

const dialNames = ["denoise", ...denoiseNames];

const refused: Readonly<Record<string, string>> = {
  prompt: "the framework's prompt or messages instead",
  messages: "the framework's prompt or messages instead",
  tokens: "the framework's prompt or messages instead",
  tools: "the framework's tools instead",
  toolChoice: "the framework's choice of a tool instead",
  signal: "the framework's signal instead",
  n: "one answer a call: call several times",
};

/**
 * Options as `engine.generate` has them; later ones win. Throws INVALID_OPTION for what the framework says by names of its own;
 * names that nobody knows are left to the engine, which refuses them.
 */
export function requestOptions(where: string, ...given: (object | undefined)[]): Partial<RequestFields> {
  const options: Record<string, unknown> = {};
  for (const part of given) {
    if (part === undefined) continue;
    if (typeof part !== "object" || part === null || Array.isArray(part))
      throw invalidOption(where, part, "an object of options");
    const entries = Object.entries(part).filter(([, value]) => value !== undefined);
    const names = entries.map(([name]) => name);
    // What is set later replaces the dial in either form; both forms at once the engine refuses.
    const forms = { quality: names.includes("quality"), denoise: dialNames.some((name) => names.includes(name)) };
    if (forms.quality && !forms.denoise) for (const name of dialNames) delete options[name];
    if (forms.denoise && !forms.quality) delete options.quality;
    for (const [name, value] of entries) {
      const instead = Object.hasOwn(refused, name) ? refused[name] : undefined;
      if (instead !== undefined) throw invalidOption(`${where}.${name}`, value, instead);
      options[name] = value;
    }
  }
  return withDenoise(options);
}

function withDenoise(options: Record<string, unknown>): Partial<RequestFields> {
  const isOwn = ([name]: [string, unknown]) => denoiseNames.some((own) => own === name);
  const entries = Object.entries(options);
  const own = Object.fromEntries(entries.filter(isOwn));
  if (Object.keys(own).length === 0) return options;
  const rest = Object.fromEntries(entries.filter((entry) => !isOwn(entry)));
  return { ...rest, denoise: { ...(options.denoise as object | undefined), ...own } };
}
