// What the kernels reached on an H200: fitted to bench/results/gpu-h200.json (as tables: gpu-h200.md), whose lines the
// comments name. Other cards are assumed to reach the same shares of their own limits, and to spend the same times where
// nothing but latency counts. Units: seconds, bytes, clocks; shares are of the card's figures in cards.mjs.

/** Of the vendor's bandwidth: "limits", read 4557 of 4800 GB/s. GEMMs of 1 to 8 tokens read weights as fast. */
export const bandwidth = 0.95;

/** Bytes of L2 that a multiprocessor gets per clock, all of them reading: gemm of 256 and 512 tokens, rms_norm of 512 rows. */
export const l2PerClock = 33;

/** Memory, L2 and arithmetic overlap in part: work = (memory³ + L2³ + arithmetic³)^⅓. From gemm of 64 to 512 tokens. */
export const overlap = 3;

/**
 * gemm, gemm_grouped and lm_head, all sizes and formats within 6 % (root mean square; largest error 20 %). `fixed`: launch
 * in a graph, first bytes, last sums (gemm o, sdar-1.7b, int4, 1 token: 4.6 µs for 2.4 MB). `tile`: more of it for 64
 * tokens of a block, less for fewer; `part`: the same for each split of k, summed again by one block (gemm o
 * of 32 and 64 tokens: 11.7 and 19.1 µs). Shares of mma.sync's peak that a multiprocessor reaches with blocks in plenty
 * (`rate`: gemm gate_up, 256 and 512 tokens) and with one alone (`alone`: gemm of sdar-1.7b, 64 tokens); `dequantise`:
 * unpacking weights costs as much as so many tokens more (gemm gate_up, int8 and int4, 64 tokens).
 */
export const gemm = {
  fixed: 3.6e-6,
  tile: 0.7e-6,
  part: 0.73e-6,
  bf16: { rate: 0.63, alone: 0.39, dequantise: 0 },
  int8: { rate: 0.54, alone: 0.47, dequantise: 11 },
  int4: { rate: 0.62, alone: 0.55, dequantise: 13 },
};

/**
 * gemm_large, blocks of 128 · 128 of which a multiprocessor holds `together`. `part`: each further split of
 * k, added by the same blocks (gemm_large o, 128 tokens: 111 µs of which 72 are multiplied). Rates: gemm_large gate_up.
 */
export const gemmLarge = {
  fixed: 3.6e-6,
  bf16: { together: 2, rate: 0.54, alone: 0.44, part: 7.2e-6 },
  int8: { together: 1, rate: 0.41, alone: 0.41, part: 4.5e-6 },
  int4: { together: 1, rate: 0.44, alone: 0.44, part: 4.5e-6 },
};

/**
 * attention_narrow: a warp needs `pageClocks` for a page of 64 keys of 128 numbers while it waits for memory (batch 1
 * behind 512: 4 pages in 9.6 µs), `sharedClocks` of a multiprocessor whose other warps compute meanwhile (batch 32,
 * blocks of 8 behind 512: 38.2 µs); all sizes within 8 %. attention_wide: `rate` of mma.sync (batch 32, blocks of 32:
 * 51.7 µs). attention_merge: `chunk` each (behind 512 and 4096: 3 and 17 chunks in 2.6 and 5.7 µs).
 */
export const attention = {
  fixed: 2.9e-6,
  pageClocks: 2800,
  sharedClocks: 1390,
  /** Warps that a multiprocessor holds (bench/gpu/occupancy.json). */
  warps: { sm_80: 2, sm_86: 1, sm_90: 3 },
  rate: 0.31,
  chunk: 0.22e-6,
};

/**
 * Kernels that pass over rows once, lines of those names: `fixed`, `each` item (a masked position, a choice of an expert,
 * a token to route), the share `l2` of L2's bandwidth, and `bandwidth` of the memory's where L2 does not hold all.
 */
export const rowwise = {
  rms_norm: { fixed: 2e-6, l2: 0.7 },
  rope: { fixed: 2.2e-6, l2: 0.45, bandwidth: 0.7 },
  embed: { fixed: 1.6e-6, l2: 0.45 },
  attention_merge: { fixed: 2e-6, l2: 0.7 },
  lm_head_merge: { fixed: 5.1e-6, l2: 0.9 },
  select_unmask: { fixed: 4e-6, l2: 0.7 },
  gather_rows: { fixed: 3.8e-6, l2: 0.7, each: 6.3e-9 },
  route: { fixed: 24e-6, l2: 0.7, each: 84e-9 },
  group: { fixed: 7e-6, l2: 0.7, each: 33e-9 },
  combine: { fixed: 1.8e-6, l2: 1 },
};

/**
 * What a step takes beside its launches: laying it out, copies to and from the card, starting the graph, waiting. From the
 * engine's steps at batch 1, which take 0.25 ms more than their launches for either shape, and up to batch 32.
 */
export const host = { step: 240e-6, each: 6e-6 };
