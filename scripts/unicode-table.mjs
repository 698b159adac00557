// Writes native/form/unicode_table.h, the general categories of all code points as this Node's V8 knows them:
// node scripts/unicode-table.mjs
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./cmake.mjs";

const categories = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn".split(
  " ",
);
/** A character for each, which no length in base 36 has. */
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%";
const tests = categories.map((name) => new RegExp(`^\\p{${name}}$`, "u"));

const categoryOf = (c) => tests.findIndex((test) => test.test(String.fromCodePoint(c)));
const runs = [];
for (let c = 0; c <= 0x10ffff; c++) {
  const category = categoryOf(c);
  const last = runs.at(-1);
  if (last?.category === category) last.length++;
  else runs.push({ category, length: 1 });
}
const text = runs.map(({ category, length }) => letters[category] + (length > 1 ? length.toString(36) : "")).join("");
const lines = text.match(/.{1,110}/g).map((line) => `    "${line}"`);
writeFileSync(
  join(root, "native", "form", "unicode_table.h"),
  `// Written by scripts/unicode-table.mjs: general categories of Unicode ${process.versions.unicode}, in runs.
#pragma once

namespace sdar::form {

inline constexpr char kCategoryNames[] = "${categories.join(" ")}";
/// Of each category, in the order of the names, the letter that begins its runs.
inline constexpr char kCategoryLetters[] = "${letters}";
/// A letter and, unless it is 1, the number of code points in base 36.
inline constexpr char kCategoryRuns[] =
${lines.join("\n")};

}  // namespace sdar::form
`,
);
