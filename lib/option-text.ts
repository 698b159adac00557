// Options of answers as text: name=value, as a line of a conversation or a setting of a measurement has them.
import { defined } from "./defined.js";
import { invalidOption } from "./errors.js";
import { denoiseNames, strategyOf } from "./quality.js";
import type { GenerateDefaults } from "./types.js";

/** Those that a line can say; the engine judges their values. */
const answerOptions = [
  ...["maxTokens", "minTokens", "blockLength", "quality", "ignoreEos", "stop"],
  ...["temperature", "topK", "topP", "minP", "seed", "repetitionPenalty", "presencePenalty", "frequencyPenalty"],
] as (keyof GenerateDefaults)[];

/** The options with one more, as name=value; a name may be written as a flag is; an empty value takes it away. */
export function setOption(options: GenerateDefaults, pair: string): GenerateDefaults {
  const [, word = "", text] = /^-{0,2}([\w-]+)=(.*)$/s.exec(pair) ?? [];
  const name = word.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
  const allowed: readonly string[] = [...answerOptions, ...denoiseNames];
  if (text === undefined || !allowed.includes(name)) {
    throw invalidOption("option", pair, `NAME=VALUE of ${allowed.join(", ")}`);
  }
  const value = text === "" ? undefined : valueIn(name, text);
  if (!(denoiseNames as readonly string[]).includes(name)) {
    const { denoise, quality, ...rest } = options;
    // A quality stands for a strategy and its settings.
    if (name === "quality") return defined({ ...rest, quality: value }) as GenerateDefaults;
    return defined({ ...options, [name]: value });
  }
  const denoise = defined({ ...options.denoise, [name]: value });
  return defined({ ...options, quality: undefined, denoise: Object.keys(denoise).length > 0 ? denoise : undefined });
}

function valueIn(name: string, text: string): unknown {
  if (name === "strategy") return strategyOf(text) ?? text;
  if (name === "seed" && /^\d{16,}$/.test(text)) return BigInt(text);
  if (text === "true" || text === "false") return text === "true";
  return name === "stop" || Number.isNaN(Number(text)) ? text : Number(text);
}

/** As setOption takes them. */
export function describeOptions({ denoise, ...rest }: GenerateDefaults): string {
  const all = Object.entries({ ...rest, ...denoise });
  return all.length === 0
    ? "no options: all are the engine's defaults"
    : all.map(([name, value]) => `${name}=${value}`).join(" ");
}
