// The launches of one denoising step, as native/backend/cuda makes them, each with what it must move and compute:
//   {kernel, count, memory, cache, operations, rate, bandwidth, note}
// memory: bytes of device memory, each once; cache: bytes moved between L2 and the multiprocessors, all together;
// operations: of the tensor cores, whole tiles counted; rate and bandwidth: the shares of mma.sync's peak and of the
// memory's bandwidth that the kernel is assumed to reach, from the first comments of the .cu files. Units: bytes, operations.

const ceil = (a, b) => Math.ceil(a / b);
const up = (a, b) => ceil(a, b) * b;

const powerOfTwo = (n) => 2 ** Math.max(3, Math.ceil(Math.log2(n)));
/** A step's rows as they are launched, so that few sizes come up. Source: step_input.cc, rounded_rows. */
const roundedRows = (rows) => (rows <= 64 ? powerOfTwo(rows) : up(rows, rows <= 1024 ? 64 : 256));

/** Shares of the peaks that kernels are assumed to reach. `dequantise` multiplies `rate` where weights are not bf16. */
export const efficiencies = {
  gemm: { bandwidth: 0.87, rate: 0.5, dequantise: 0.7 },
  gemmLarge: { bandwidth: 0.87, rate: { sm_80: 0.85, sm_90: 0.6 }, dequantise: 0.8 },
  attention: { bandwidth: 0.8, rate: 0.45 },
  // Clocks that one warp takes for a page of 64 keys of 128 numbers (attention.cu), and warps that run at once.
  attentionPage: { clocks: 1800, warps: { sm_80: 2, sm_86: 1, sm_90: 3 } },
  rowwise: { bandwidth: 0.85 },
};

const pageSlots = 64;
const tokensPerPage = (block) => Math.floor(pageSlots / block) * block;

/** Whether a product is gemm_large's. Source: native/backend/cuda/gemm.h, is_large. */
const isLarge = (matrix, rows, card) =>
  rows > 256 &&
  (rows > 1024 || (matrix.parts === 1 && ceil(rows, 128) * ceil(matrix.rows, 128) >= card.multiprocessors));
/** Requests that the head takes at once (choose.h), and copies to and from the card beside the launches (step_input.cc). */
const headTurn = 256;
const copies = 9;

/** What the tokens of a product are padded to, and the blocks of weight rows that each read all activations. */
function tile(rows, large) {
  if (large) return { tokens: up(rows, 128), blockRows: 128 };
  const tokens = [8, 16, 32].find((n) => rows <= n) ?? up(rows, 64);
  return { tokens, blockRows: tokens >= 64 ? 128 : 64 };
}

/** y = activations · Wᵀ of `rows` tokens; `written` bytes per output element, `read` ones when it is added to. */
function product(kernel, matrix, rows, format, context) {
  const { card, family } = context;
  const large = isLarge(matrix, rows, card);
  const { tokens, blockRows } = tile(rows, large);
  const weights = matrix.bytes[format];
  const activations = rows * up(matrix.cols, 128) * 2;
  const outputs = matrix.kind === "gate_up" ? matrix.rows / 2 : matrix.rows;
  const written = rows * outputs * (matrix.kind === "gate_up" ? 2 : 4);
  const rowBlocks = ceil(matrix.rows, blockRows);
  // Parts of the sum over k: written and read again, in L2.
  const partly = matrix.parts > 1 ? 2 * 4 * (large ? matrix.parts - 1 : matrix.parts) * matrix.rows * tokens : 0;
  // Activations that L2 does not hold are read again by every group of row blocks that runs at once.
  const together = Math.max(1, Math.floor(card.multiprocessors / ceil(tokens, 128)));
  const passes = activations <= card.l2 / 2 ? 1 : ceil(rowBlocks, together);
  const assumed = large ? efficiencies.gemmLarge : efficiencies.gemm;
  // gemm_large's blocks take a multiprocessor each: the last round of them may leave some idle.
  const blocks = rowBlocks * ceil(tokens, 128);
  const busy = blocks / up(blocks, card.multiprocessors);
  const rate = large ? busy * assumed.rate[family === "sm_90" ? "sm_90" : "sm_80"] : assumed.rate;
  return {
    kernel: `${large ? "gemm_large" : "gemm"} ${kernel}`,
    memory: weights + activations * passes + written,
    cache: weights * ceil(tokens, large ? 128 : 64) + activations * rowBlocks + partly + written,
    operations: 2 * up(matrix.rows, 16) * up(matrix.cols, 128) * tokens,
    bandwidth: assumed.bandwidth,
    rate: format === "bf16" ? rate : rate * assumed.dequantise,
  };
}

/** Products of the experts that `rows` tokens are expected to take, each with its share of the rows. */
function grouped(kernel, matrix, rows, format, model) {
  const choices = rows * model.expertsPerToken;
  const met = model.experts * (1 - (1 - model.expertsPerToken / model.experts) ** rows);
  const perExpert = Math.max(1, choices / met);
  const tokens = up(perExpert, 8);
  const blockRows = choices <= 8 * model.experts ? 64 : 128;
  const activations = perExpert * up(matrix.cols, 128) * 2;
  const outputs = matrix.kind === "gate_up" ? matrix.rows / 2 : matrix.rows;
  const written = choices * outputs * (matrix.kind === "gate_up" ? 2 : 4);
  const { bandwidth, rate, dequantise } = efficiencies.gemm;
  return {
    kernel: `gemm_grouped ${kernel}`,
    memory: met * (matrix.bytes[format] + activations) + written,
    cache: met * (matrix.bytes[format] * ceil(perExpert, 64) + activations * ceil(matrix.rows, blockRows)) + written,
    operations: 2 * met * up(matrix.rows, 16) * up(matrix.cols, 128) * tokens,
    bandwidth,
    rate: format === "bf16" ? rate : rate * dequantise,
  };
}

/** Kernels that pass over rows once: read and written by the kernels beside them, from L2 where all fits into half of it. */
function rowwise(kernel, bytes, { card }) {
  const fits = bytes <= card.l2 / 2;
  return { kernel, memory: fits ? 0 : bytes, cache: bytes, operations: 0, bandwidth: efficiencies.rowwise.bandwidth };
}

/** Attention of one layer; a list: the merge of chunks is a launch of its own. */
function attention(model, step, context) {
  const { card, family } = context;
  const { heads, kvHeads, headDim } = model;
  const { batch, block, context: keys } = step;
  const group = heads / kvHeads;
  const perPage = tokensPerPage(block);
  const rowsPerSequence = step.rows / batch;
  const visible = keys + rowsPerSequence;
  const pages = ceil(visible, perPage);
  const queries = rowsPerSequence * group;
  const wide = queries >= 64;
  const items = ceil(queries, wide ? 64 : 16);
  const chunks = ceil(visible, 4 * perPage);
  const keyBytes = batch * kvHeads * visible * 2 * headDim * 2;
  const rowBytes = step.rows * heads * headDim * 4;
  const partials = !wide && chunks > 1 ? batch * items * chunks * kvHeads * 16 * (headDim + 2) * 4 : 0;
  const warpPages = batch * kvHeads * items * pages;
  const { clocks, warps } = efficiencies.attentionPage;
  const launches = [
    {
      kernel: wide ? "attention_wide" : "attention_narrow",
      memory: keyBytes + rowBytes,
      cache: keyBytes * items + rowBytes + partials,
      operations: wide ? 4096 * warpPages * 4 * headDim : 0,
      issue: wide ? 0 : (warpPages * clocks * (headDim / 128)) / (card.multiprocessors * warps[family] * card.clock),
      bandwidth: efficiencies.attention.bandwidth,
      rate: efficiencies.attention.rate,
    },
  ];
  if (partials > 0) launches.push(rowwise("attention_merge", partials + rowBytes / 2, context));
  return launches;
}

/** In turns, each of which reads the weights again. Greedy requests want no sample. */
function head(model, requests, format, context) {
  const matrix = model.matrices.head;
  const { bandwidth, rate, dequantise } = efficiencies.gemm;
  const turns = [];
  for (let first = 0; first < requests; first += headTurn) {
    const taken = Math.min(headTurn, requests - first);
    const tokens = taken <= 8 ? 8 : taken <= 32 ? 32 : up(taken, 64);
    const blockRows = tokens >= 64 ? 128 : 64;
    const activations = taken * up(matrix.cols, 128) * 2;
    const partial = taken * ceil(model.vocabulary, 64) * 20;
    turns.push(
      {
        kernel: "head",
        memory: matrix.bytes[format] + activations + partial,
        cache: matrix.bytes[format] * ceil(tokens, 64) + activations * ceil(matrix.rows, blockRows) + partial,
        operations: 2 * up(matrix.rows, 16) * up(matrix.cols, 128) * tokens,
        bandwidth,
        rate: format === "bf16" ? rate : rate * dequantise,
      },
      rowwise("head_merge", 2 * partial, context),
    );
  }
  return turns;
}

/** The architecture whose limits a card has. */
export const familyOf = (card) => (card.mmaShare < 1 ? "sm_90" : card.multiprocessors === 108 ? "sm_80" : "sm_86");

/**
 * All launches of a step: {batch, block, context, rows, requests, weights}. rows: positions computed, committed blocks
 * included; requests: masked positions; context: keys before each sequence's rows.
 */
export function launchesOf(model, asked, card) {
  const step = { ...asked, rows: roundedRows(asked.rows) };
  const paddedRequests = powerOfTwo(asked.requests);
  const { hidden, heads, kvHeads, headDim, layers, experts, expertsPerToken } = model;
  const { rows, requests, weights: format } = step;
  const context = { card, family: familyOf(card) };
  const { qkv, o, gateUp, down, router, expertGateUp, expertDown } = model.matrices;
  const norm = (name, n) => rowwise(name, n * hidden * 6 + hidden * 4, context);
  const mlp =
    experts > 0
      ? [
          rowwise("route", rows * (hidden + experts * hidden) * 4, context),
          rowwise("group", rows * expertsPerToken * 4 * experts, context),
          norm("rms_norm (experts)", rows * expertsPerToken),
          grouped("gate_up", expertGateUp, rows, format, model),
          grouped("down", expertDown, rows, format, model),
          rowwise("combine", rows * hidden * 4 * (expertsPerToken + 2), context),
        ]
      : [
          norm("rms_norm (mlp)", rows),
          product("gate_up", gateUp, rows, format, context),
          product("down", down, rows, format, context),
        ];
  if (experts > 0 && !router) throw new Error("a mixture of experts has a router");
  const layer = [
    norm("rms_norm (attention)", rows),
    product("qkv", qkv, rows, format, context),
    rowwise("rope", rows * (heads + 2 * kvHeads) * headDim * 6, context),
    ...attention(model, asked, context),
    product("o", o, rows, format, context),
    ...mlp,
  ];
  const outer = [
    { ...rowwise("copies to and from the card", 0, context), count: copies },
    rowwise("list_requests", step.batch * 120 + requests * 56, context),
    rowwise("embed", rows * hidden * 6, context),
    norm("rms_norm (head)", paddedRequests),
    ...head(model, requests, format, context),
    rowwise("choose_fill", step.batch * 120 + requests * 12, context),
  ];
  return [...outer.map((l) => ({ count: 1, ...l })), ...layer.map((l) => ({ count: layers, ...l }))];
}
