// What the commands need to know of terminals.
import type { WriteStream } from "node:tty";

/** Whether lines can be redrawn in place. */
export function isTerminal(stream: NodeJS.WriteStream): boolean {
  return stream.isTTY === true && process.env.TERM !== "dumb";
}

/** See https://no-color.org. */
export function hasColour(stream: WriteStream): boolean {
  return !process.env.NO_COLOR && stream.hasColors(256);
}

/** Without control characters, which a model might use to take over the terminal; line breaks and tabs stay. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is meant
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "\ufffd");
}

const invisible = /^[\p{Mn}\p{Me}\p{Cf}]$/u;
const wide =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]$/u;

/** Columns that one character (code point) takes. */
export function columnsOf(character: string): number {
  return invisible.test(character) ? 0 : wide.test(character) ? 2 : 1;
}

/** Text in the style that a terminal has for what matters less; as it is where there are no colours. */
export const dim = (text: string, stream: WriteStream): string =>
  isTerminal(stream) && hasColour(stream) ? `\x1b[2m${text}\x1b[0m` : text;

/** Bytes for people. */
export function sizeOf(bytes: number): string {
  if (bytes < 1e4) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(0)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}
