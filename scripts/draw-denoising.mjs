// The README's picture, docs/denoising.svg: one answer of the shipped model, a row for each forward. Needs the build.
//   node scripts/draw-denoising.mjs [prompt]
// The rows come up one after the other; a viewer that does not animate, or a reader who wants no motion, sees them all.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Engine } from "sdar-engine";
import { root } from "./cmake.mjs";

const prompt = process.argv[2] ?? "Atoms in Cl3(OH)2?";
const cell = { width: 31, height: 26, gap: 3 };
const blockGap = 14;
const left = 76;
const top = 98;
const holdSeconds = 4;
const stepSeconds = 0.9;

const engine = await Engine.load("sdar-nano", { device: "cpu" });
const run = engine.generate({ messages: [{ role: "user", content: prompt }], drafts: true });
const drafts = [];
for await (const { draft } of run) if (draft) drafts.push(draft);
const { text, usage } = await run.result();
const { blockLength, endTokenIds } = engine.model;
await engine.dispose();

const firstBlock = drafts[0].block;
const x = (block, offset) =>
  left + (block - firstBlock) * (blockLength * (cell.width + cell.gap) + blockGap) + offset * (cell.width + cell.gap);
const y = (row) => top + row * (cell.height + 8);
const escaped = (s) => s.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);

/** A special token has no text; what comes after the end means nothing. */
function label(token) {
  if (endTokenIds.includes(token.id)) return "end";
  if (token.step === null) return "";
  return escaped(token.text.replaceAll("\n", "↵").replaceAll(" ", "·"));
}

/** How a position looks in a row: what it is, and whether the row's forward filled it. */
function kind(token, draft, active) {
  if (!token) return "masked";
  if (token.step === null) return "fixed";
  return active && token.step === draft.step ? "filled" : "kept";
}

/** Positions up to the end, once that is known. */
function shown({ tokens }) {
  const ended = tokens.findIndex((token) => token && endTokenIds.includes(token.id));
  return ended < 0 || tokens.includes(null) ? tokens : tokens.slice(0, ended + 1);
}

function cells(draft, row, active) {
  return shown(draft).map((token, offset) => {
    const at = `x="${x(draft.block, offset)}" y="${y(row)}"`;
    const box = `<rect class="${kind(token, draft, active)}" ${at} width="${cell.width}" height="${cell.height}" rx="4"/>`;
    if (!token || label(token) === "") return box;
    const style = `${kind(token, draft, active)}-text`;
    const middle = `x="${x(draft.block, offset) + cell.width / 2}" y="${y(row) + 18}"`;
    return `${box}<text class="token ${style}" ${middle}>${label(token)}</text>`;
  });
}

const total = drafts.length * stepSeconds + holdSeconds;
const percent = (seconds) => `${((100 * seconds) / total).toFixed(2)}%`;
const last = new Map();
const rows = drafts.map((draft, row) => {
  const done = [...last.values()].filter(({ block }) => block !== draft.block);
  last.set(draft.block, draft);
  const number = `<text class="label" x="${left - 16}" y="${y(row) + 18}" text-anchor="end">${row + 1}</text>`;
  const parts = [...done.flatMap((other) => cells(other, row, false)), ...cells(draft, row, true)];
  return `<g class="row" style="animation-name:row${row}">${[number, ...parts].join("\n")}</g>`;
});
const appear = drafts
  .map((_, row) => {
    const [from, to] = [row * stepSeconds, row * stepSeconds + 0.25].map(percent);
    return `@keyframes row${row}{0%,${from}{opacity:0}${to},100%{opacity:1}}`;
  })
  .join("\n");

const blocks = [...last.keys()];
// A block is as wide as it was at its widest, and no narrower than its name.
const columns = (block) => Math.max(2, ...drafts.filter((d) => d.block === block).map((d) => shown(d).length));
const right = (block) => x(block, columns(block)) - cell.gap;
const width = right(blocks.at(-1)) + 32;
const height = y(drafts.length) + 46;
const headings = blocks.map((block) => {
  const [begin, end] = [x(block, 0), right(block)];
  return `<text class="label" x="${(begin + end) / 2}" y="${top - 24}" text-anchor="middle">block ${block}</text>
<path class="rule" d="M${begin} ${top - 15}H${end}"/>`;
});
const legend = ["masked", "filled by this forward", "filled before", "prompt"].map((name, index) => {
  const at = left + [0, 96, 304, 446][index];
  const style = ["masked", "filled", "kept", "fixed"][index];
  return `<rect class="${style}" x="${at}" y="${height - 34}" width="16" height="16" rx="3"/>
<text class="label" x="${at + 23}" y="${height - 21}">${name}</text>`;
});
const summary = `${usage.completionTokens} tokens in ${usage.forwards} forwards`;

writeFileSync(
  join(root, "docs", "denoising.svg"),
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${escaped(prompt)}: ${escaped(text)}, ${summary}</title>
<!-- made by scripts/draw-denoising.mjs -->
<style>
svg{--paper:#fff;--edge:#d0d7de;--ink:#1f2328;--soft:#59636e;--mask:#eaeef2;--new:#0969da;--new-ink:#fff;--old:#ddf4ff}
@media (prefers-color-scheme:dark){
svg{--paper:#0d1117;--edge:#3d444d;--ink:#f0f6fc;--soft:#9198a1;--mask:#262c36;--new:#4493f8;--new-ink:#0d1117;--old:#13294b}}
text{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.paper{fill:var(--paper);stroke:var(--edge)}
.label{fill:var(--soft);font-size:12px}
.title{fill:var(--ink);font-size:14px}.soft{fill:var(--soft)}
.token{font-size:13px;text-anchor:middle}
.rule{stroke:var(--edge)}
.masked{fill:var(--mask);stroke:var(--edge);stroke-dasharray:3 3}
.filled{fill:var(--new)}.filled-text{fill:var(--new-ink);font-weight:600}
.kept{fill:var(--old)}.kept-text{fill:var(--ink)}
.fixed{fill:none;stroke:var(--edge)}
.row{animation-duration:${total.toFixed(1)}s;animation-iteration-count:infinite}
${appear}
@media (prefers-reduced-motion:reduce){.row{animation:none}}
</style>
<rect class="paper" x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="8"/>
<text class="title" x="${left}" y="36">${escaped(prompt)}<tspan class="soft"> → </tspan>${escaped(text)}</text>
<text class="label" x="${width - 32}" y="36" text-anchor="end">${summary}</text>
<text class="label" x="${left - 16}" y="${top - 24}" text-anchor="end">forward</text>
${[...headings, ...rows, ...legend].join("\n")}
</svg>
`,
);
console.log(`docs/denoising.svg: ${text} (${summary})`);
