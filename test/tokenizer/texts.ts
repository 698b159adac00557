// Random texts for comparing tokenizers: all scripts, marks, emoji, white space, controls, digits, names of added tokens and
// parts of them. The same ones every time.

/** Ranges of code points; what is unassigned among them may be assigned in a newer Unicode. */
const ranges: [from: number, to: number][] = [
  [0x00, 0x1f],
  [0x20, 0x7e],
  [0x20, 0x7e],
  [0x80, 0x24f],
  [0x300, 0x36f],
  [0x370, 0x5ff],
  [0x600, 0xdff],
  [0xe00, 0x11ff],
  [0x1200, 0x1fff],
  [0x2000, 0x2fff],
  [0x3000, 0x9fff],
  [0xac00, 0xd7a3],
  [0xe000, 0xffff],
  [0x10000, 0x107ff],
  [0x10d40, 0x10d8f],
  [0x10800, 0x1ffff],
  [0x1f300, 0x1faff],
  [0x20000, 0x2fa1f],
];
const words = [
  "hello",
  " world",
  " the",
  "don't",
  "'S",
  "'re",
  "123",
  "\n",
  "\r\n",
  "\t",
  "的",
  "한국어",
  "e\u0301",
  "👩‍👩‍👧",
];
const parts = ["<|im_", "|>", "<", "</think", "tool_call>", "\u0315\u0300\u0327", "K\u212b\u037e"];

function generator(seed: number) {
  let state = seed;
  return (n: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

/** `names` are those of added tokens. */
export function texts(count: number, names: string[]): string[] {
  const random = generator(1);
  const pick = <T>(list: T[]) => list[random(list.length)] as T;
  const character = ([from, to]: [from: number, to: number]) => String.fromCodePoint(from + random(to - from + 1));
  const piece = () => {
    switch (random(8)) {
      case 0:
        return pick(names);
      case 1:
        return pick([" ", "\n", "\u00a0", "\u3000"]).repeat(1 + random(20));
      case 2:
        return pick(words);
      case 3: {
        const range = pick(ranges);
        return Array.from({ length: 1 + random(8) }, () => character(range)).join("");
      }
      case 4:
        return pick(parts);
      default:
        return character(pick(ranges));
    }
  };
  return Array.from({ length: count }, () => Array.from({ length: 1 + random(30) }, piece).join(""));
}

/** A fingerprint of ids: FNV-1a over their numbers. */
export function fingerprint(ids: Iterable<number>): string {
  let hash = 0x811c9dc5;
  for (const id of ids) hash = Math.imul(hash ^ id, 0x01000193) >>> 0;
  return hash.toString(36);
}
