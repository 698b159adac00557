// The launches of one denoising step, as native/backend/cuda makes them, each with what it must move and compute:
//   {kernel, count, memory, cache, operations, arithmetic, fixed}
// memory: bytes of device memory, each once, divided by the share of the bandwidth that is reached; cache: bytes moved
// between L2 and the multiprocessors, all together, likewise; operations: of the tensor cores, whole tiles counted;
// arithmetic: seconds that those take on the multiprocessors, blocks shared out; fixed: seconds whatever the work.
import * as reached from "./efficiencies.mjs";

const ceil = (a, b) => Math.ceil(a / b);
const up = (a, b) => ceil(a, b) * b;

const powerOfTwo = (n) => 2 ** Math.max(3, Math.ceil(Math.log2(n)));
/** A step's rows as they are launched, so that few sizes come up. Source: step_input.cc, rounded_rows. */
const roundedRows = (rows) => (rows <= 64 ? powerOfTwo(rows) : up(rows, rows <= 1024 ? 64 : 256));

const pageSlots = 64;
const tokensPerPage = (block) => Math.floor(pageSlots / block) * block;
const chunkPages = 4;
/** Places for partial results of attention. Source: attention.h, kMaxPartials. */
const maxPartials = 1024;
/** Sampled rows that the lm_head takes at once. Source: denoise.h, kLmHeadChunk. */
const lmHeadChunk = 256;

/** The architecture whose limits a card has. */
export const familyOf = (card) => (card.mmaShare < 1 ? "sm_90" : card.multiprocessors === 108 ? "sm_80" : "sm_86");

/** Operations per second of a multiprocessor's mma.sync. */
const mmaRate = (card) => (card.tensorPeak * card.mmaShare) / card.multiprocessors;

/**
 * Whether a product is gemm_large's. Source: native/backend/cuda/kernels/gemm.h, is_large. gemm_warpgroup, which takes most
 * matmuls of more than 64 tokens on sm_90, is not in here before it has been measured.
 */
const isLarge = (matrix, rows, card) =>
  rows > 256 &&
  (rows > 1024 || (matrix.parts === 1 && ceil(rows, 128) * ceil(matrix.rows, 128) >= card.multiprocessors));

/** What gemm's blocks take of a matmul: tokens, weight rows. Source: gemm.h, gemm_token_tiles and gemm_row_tiles. */
function smallTile(rows) {
  const tokens = [8, 16, 32].find((n) => rows <= n) ?? 64;
  return { tokens, rows: tokens === 64 ? 128 : 64 };
}

/** Seconds of `blocks` blocks of gemm's kind, each with `k` columns: rounds of them, one for each multiprocessor. */
function smallArithmetic(blocks, tile, k, format, card) {
  const { rate, alone, dequantise } = reached.gemm[format];
  const block = (2 * tile.rows * (tile.tokens + dequantise) * k) / mmaRate(card);
  return block * Math.max(1 / alone, ceil(blocks, card.multiprocessors) / rate);
}

const smallFixed = (tile, parts) =>
  reached.gemm.fixed + (tile.tokens / 64) * (reached.gemm.tile + (parts > 1 ? parts * reached.gemm.part : 0));

function largeArithmetic(blocks, matrix, format, card) {
  const { together, rate, alone, part } = reached.gemmLarge[format];
  const block = (2 * 128 * 128 * up(matrix.cols, 128)) / mmaRate(card);
  const rounds = ceil(blocks, card.multiprocessors);
  const full = Math.floor(rounds / together);
  const groups = ceil(rounds, together);
  return block * ((full * together) / rate + (groups - full) / alone) + groups * (matrix.parts - 1) * part;
}

/** y = activations · Wᵀ of `rows` tokens. */
function matmul(kernel, matrix, rows, format, { card }, large = isLarge(matrix, rows, card)) {
  const tile = large ? { tokens: 128, rows: 128 } : smallTile(rows);
  const tokens = up(rows, tile.tokens);
  const weights = matrix.bytes[format];
  const activations = rows * up(matrix.cols, 128) * 2;
  const outputs = matrix.kind === "gate_up" ? matrix.rows / 2 : matrix.rows;
  const written = rows * outputs * (matrix.kind === "gate_up" ? 2 : 4);
  const rowBlocks = ceil(matrix.rows, tile.rows);
  const tokenBlocks = tokens / tile.tokens;
  // Partial sums of split-K: written and read again, in L2.
  const partly = matrix.parts > 1 ? 2 * 4 * (large ? matrix.parts - 1 : matrix.parts) * matrix.rows * tokens : 0;
  // Activations that L2 does not hold are read again by every group of row blocks that runs at once.
  const together = Math.max(1, Math.floor(card.multiprocessors / ceil(tokens, 128)));
  const passes = activations <= card.l2 / 2 ? 1 : ceil(rowBlocks, together);
  return {
    kernel: `${large ? "gemm_large" : "gemm"} ${kernel}`,
    memory: weights + activations * passes + written,
    cache: weights * tokenBlocks + activations * rowBlocks + partly + written,
    operations: 2 * up(matrix.rows, 16) * up(matrix.cols, 128) * tokens,
    arithmetic: large
      ? largeArithmetic(rowBlocks * tokenBlocks, matrix, format, card)
      : smallArithmetic(
          rowBlocks * tokenBlocks * matrix.parts,
          tile,
          up(matrix.cols, 128) / matrix.parts,
          format,
          card,
        ),
    fixed: large ? reached.gemmLarge.fixed : smallFixed(tile, matrix.parts),
  };
}

/** GEMMs of the experts that `rows` tokens are expected to take, each with its share of the rows. */
function grouped(kernel, matrix, rows, format, model, { card }) {
  const choices = rows * model.expertsPerToken;
  const met = model.experts * (1 - (1 - model.expertsPerToken / model.experts) ** rows);
  const perExpert = Math.max(1, choices / met);
  const tile = choices <= 8 * model.experts ? { tokens: 8, rows: 64 } : { tokens: 64, rows: 128 };
  const tokenBlocks = ceil(perExpert, tile.tokens);
  const rowBlocks = ceil(matrix.rows, tile.rows);
  const cols = up(matrix.cols, 128);
  const activations = perExpert * cols * 2;
  const outputs = matrix.kind === "gate_up" ? matrix.rows / 2 : matrix.rows;
  const written = choices * outputs * (matrix.kind === "gate_up" ? 2 : 4);
  return {
    kernel: `gemm_grouped ${kernel}`,
    memory: met * (matrix.bytes[format] + activations) + written,
    cache: met * (matrix.bytes[format] * tokenBlocks + activations * rowBlocks) + written,
    operations: 2 * met * up(matrix.rows, 16) * cols * tokenBlocks * tile.tokens,
    arithmetic: smallArithmetic(met * rowBlocks * tokenBlocks, tile, cols, format, card),
    fixed: smallFixed(tile, 1),
  };
}

/** Kernels that pass over rows once: what the kernels beside them read and wrote is in L2, as far as that holds it. */
function rowwise(kernel, bytes, { card }, { items = 0, latency = 0 } = {}) {
  const of = reached.rowwise[kernel.split(" ")[0]];
  const memory = Math.max(0, bytes - card.l2 / 2);
  return {
    kernel,
    memory: (memory * reached.bandwidth) / (of.bandwidth ?? reached.bandwidth),
    cache: bytes / of.l2,
    operations: 0,
    arithmetic: latency,
    fixed: of.fixed + items * (of.each ?? 0),
  };
}

/**
 * Attention of one layer: a list of what is launched. `segments`: {count, rows, context}, as many sequences with as many
 * rows behind so many keys; counts are averages.
 */
function attention(model, block, segments, context) {
  const { card, family } = context;
  const { heads, kvHeads, headDim } = model;
  const perPage = tokensPerPage(block);
  const width = headDim / 128;
  const narrow = { memory: 0, cache: 0, pages: 0, longest: 0, count: 0 };
  const wide = { ...narrow };
  const merge = { bytes: 0, chunks: 0, count: 0 };
  let places = maxPartials;
  for (const { count, rows, context: keys } of segments) {
    if (count === 0) continue;
    const queries = (rows * heads) / kvHeads;
    const to = queries >= 64 ? wide : narrow;
    const items = ceil(queries, to === wide ? 64 : 16);
    // A prompt's rows see keys up to their own block, in the middle half of them.
    const visible = keys + (rows > 2 * block ? rows / 2 : rows);
    const chunks = ceil(keys + rows, chunkPages * perPage);
    const rowBytes = rows * heads * headDim * 4;
    const keyBytes = kvHeads * (keys + rows) * 2 * headDim * 2;
    to.memory += count * (keyBytes + rowBytes);
    to.cache += count * (keyBytes * items + rowBytes);
    to.pages += count * kvHeads * items * ceil(visible, perPage);
    to.count = Math.min(1, to.count + count);
    // The warp that is longest at work: without places for partial results, one has all pages.
    const split = to === narrow && chunks > 1 ? Math.min(count, places / (items * chunks)) : 0;
    const pages = ceil(keys + rows, perPage);
    to.longest = Math.max(to.longest, split >= count ? Math.min(pages, chunkPages) : pages);
    if (split === 0) continue;
    places -= split * items * chunks;
    merge.bytes += split * (items * chunks * kvHeads * 16 * (headDim + 2) * 4 + rowBytes / 2);
    merge.chunks = Math.max(merge.chunks, chunks);
    merge.count = Math.min(1, merge.count + split);
  }
  const { fixed, pageClocks, sharedClocks, warps, rate, chunk } = reached.attention;
  const latency = (longest) => (longest * pageClocks * width) / card.clock;
  const launches = [];
  if (narrow.count > 0) {
    const clocks = Math.max(sharedClocks, pageClocks / warps[family]) * width;
    launches.push({
      kernel: "attention_narrow",
      memory: narrow.memory,
      cache: narrow.cache,
      operations: 0,
      arithmetic: (narrow.pages * clocks) / (card.multiprocessors * card.clock),
      fixed: fixed + latency(narrow.longest),
      count: narrow.count,
    });
  }
  if (wide.count > 0) {
    const operations = 4096 * wide.pages * 4 * headDim;
    launches.push({
      kernel: "attention_wide",
      memory: wide.memory,
      cache: wide.cache,
      operations,
      arithmetic: Math.max(operations / (rate * mmaRate(card) * card.multiprocessors), latency(wide.longest)),
      fixed,
      count: wide.count,
    });
  }
  if (merge.count > 0) {
    const launch = rowwise("attention_merge", merge.bytes, context, { latency: merge.chunks * chunk });
    launches.push({ ...launch, count: merge.count });
  }
  return launches;
}

/** In chunks, each of which reads the weights again. Greedy rows want no sample. */
function lmHead(model, requests, format, context, chunk = lmHeadChunk) {
  const matrix = model.matrices.head;
  const launches = [];
  for (let first = 0; first < requests; first += chunk) {
    const taken = Math.min(chunk, requests - first);
    const tile = smallTile(Math.min(chunk, powerOfTwo(requests)));
    const tokenBlocks = ceil(taken, tile.tokens);
    const rowBlocks = ceil(matrix.rows, tile.rows);
    const cols = up(matrix.cols, 128);
    const activations = taken * cols * 2;
    const partial = taken * ceil(model.vocabulary, 64) * 20;
    launches.push(
      {
        kernel: "lm_head",
        memory: matrix.bytes[format] + activations + partial,
        cache: matrix.bytes[format] * tokenBlocks + activations * rowBlocks + partial,
        operations: 2 * up(matrix.rows, 16) * cols * tokenBlocks * tile.tokens,
        // int4 models hold it as int8.
        arithmetic: smallArithmetic(
          rowBlocks * tokenBlocks,
          tile,
          cols,
          format === "bf16" ? "bf16" : "int8",
          context.card,
        ),
        fixed: smallFixed(tile, 1),
      },
      rowwise("lm_head_merge", partial, context),
    );
  }
  return launches;
}

/**
 * All launches of a step: {batch, block, tokensPerForward, context, rows, requests, weights, prompt}. rows: positions of
 * blocks, committed ones included; requests: masked positions; context: keys before each sequence's rows; prompt:
 * positions of one more sequence that has nothing behind it, or 0.
 */
export function launchesOf(model, step, card) {
  const rows = roundedRows(step.rows + step.prompt);
  const { hidden, heads, kvHeads, headDim, layers, experts, expertsPerToken } = model;
  const { batch, block, requests, weights: format } = step;
  const context = { card, family: familyOf(card) };
  const { qkv, o, gateUp, down, router, expertGateUp, expertDown } = model.matrices;
  const norm = (name, n) => rowwise(`rms_norm ${name}`, n * hidden * 6 + hidden * 4, context);
  // So many sequences commit a block beside the one that they denoise.
  const committing = (batch * step.tokensPerForward) / block;
  const segments = [
    { count: batch - committing, rows: block, context: step.context },
    { count: committing, rows: 2 * block, context: step.context },
    { count: step.prompt > 0 ? 1 : 0, rows: step.prompt, context: 0 },
  ];
  const mlp =
    experts > 0
      ? [
          rowwise("route", (rows + experts) * hidden * 4, context, { items: rows }),
          rowwise("group", rows * expertsPerToken * 12, context, { items: rows * expertsPerToken }),
          norm("(experts)", rows * expertsPerToken),
          grouped("gate_up", expertGateUp, rows, format, model, context),
          grouped("down", expertDown, rows, format, model, context),
          rowwise("combine", rows * hidden * 4 * (expertsPerToken + 2), context),
        ]
      : [
          norm("(mlp)", rows),
          matmul("gate_up", gateUp, rows, format, context),
          matmul("down", down, rows, format, context),
        ];
  if (experts > 0 && !router) throw new Error("a mixture of experts has a router");
  const layer = [
    norm("(attention)", rows),
    matmul("qkv", qkv, rows, format, context),
    rowwise("rope", rows * (heads + 2 * kvHeads) * headDim * 6, context),
    ...attention(model, block, segments, context),
    matmul("o", o, rows, format, context),
    ...mlp,
  ];
  const outer = [
    rowwise("gather_rows", batch * 120 + requests * 56, context, { items: requests }),
    rowwise("embed", rows * hidden * 6, context),
    norm("(lm_head)", powerOfTwo(requests)),
    ...lmHead(model, requests, format, context),
    rowwise("select_unmask", batch * 120 + requests * 12, context),
  ];
  return [...outer.map((l) => ({ count: 1, ...l })), ...layer.map((l) => ({ ...l, count: layers * (l.count ?? 1) }))];
}

/** A launch as sdar-gpu-bench measures it: {kernel, model, weights, size}; undefined when no step of greedy requests has it. */
export function launchOf({ kernel, model, weights, size }, card) {
  const context = { card, family: familyOf(card) };
  const [first, second, third, block] = size.match(/\d+/g).map(Number);
  const { hidden, heads, kvHeads, headDim, matrices: m, expertsPerToken } = model;
  const [name, of] = kernel.split(" ");
  const matrix = { gate_up: m.gateUp ?? m.expertGateUp, down: m.down ?? m.expertDown, qkv: m.qkv, o: m.o }[of];
  switch (name) {
    case "gemm":
    case "gemm_large":
      return matmul(of, matrix, first, weights, context, name === "gemm_large");
    case "gemm_grouped":
      return grouped(of, matrix, first, weights, model, context);
    case "lm_head":
    case "lm_head_merge":
      return lmHead(model, first, weights, context, first).find((launch) => launch.kernel === name);
    case "attention_narrow":
    case "attention_wide":
    case "attention_merge": {
      const segments = [{ count: first, rows: second, context: third }];
      return attention(model, block, segments, context).find((launch) => launch.kernel === name);
    }
    case "rms_norm":
      return rowwise(name, first * hidden * 6, context);
    case "embed":
      return rowwise(name, first * hidden * 6, context);
    case "rope":
      return rowwise(name, first * (heads + 2 * kvHeads) * headDim * 6, context);
    case "gather_rows":
      return rowwise(name, first * (120 + second * 56), context, { items: first * second });
    case "route":
      return rowwise(name, (first + model.experts) * hidden * 4, context, { items: first });
    case "group":
      return rowwise(name, first * expertsPerToken * 12, context, { items: first * expertsPerToken });
    case "combine":
      return rowwise(name, first * hidden * 4 * (expertsPerToken + 2), context);
  }
}
