// What a card can do, by its vendor or by who measured it. Units: bytes per second, operations per second (two for a
// multiply-add), bytes, seconds. `mmaShare` is the part of `tensorPeak` that mma.sync reaches, the instruction that the
// kernels use: from sm_90 on the peak belongs to instructions of a warp group.

const ampere = "NVIDIA A100 Tensor Core GPU Architecture whitepaper; A100 80GB SXM datasheet";
const ada = "NVIDIA Ada GPU Architecture whitepaper, appendix A";
const hopper = "NVIDIA H100 Tensor Core GPU Architecture whitepaper; H100 SXM datasheet";
const ofHopper =
  "mma.sync on Hopper: about 62 % of wgmma's peak (Luo et al., Benchmarking and Dissecting the Nvidia Hopper GPU Architecture, arXiv:2402.13499)";

const a100 = {
  name: "A100 80 GB SXM",
  multiprocessors: 108,
  clock: 1.41e9,
  bandwidth: 2039e9,
  tensorPeak: 312e12,
  mmaShare: 1,
  l2: 40e6,
  memory: 80e9,
  sources: [ampere],
};

export const cards = {
  "a100-80g": a100,
  a800: {
    ...a100,
    name: "A800 80 GB SXM",
    sources: ["as A100 80 GB SXM; NVLink alone is narrower (NVIDIA A800 datasheet)", ampere],
  },
  "rtx-4090": {
    name: "RTX 4090",
    multiprocessors: 128,
    clock: 2.52e9,
    bandwidth: 1008e9,
    tensorPeak: 165.2e12,
    mmaShare: 1,
    l2: 72e6,
    memory: 24e9,
    sources: [ada, "bf16 with f32 sums runs at half the rate of f16 with f16 sums on GeForce"],
  },
  l40s: {
    name: "L40S",
    multiprocessors: 142,
    clock: 2.52e9,
    bandwidth: 864e9,
    tensorPeak: 362e12,
    mmaShare: 1,
    l2: 96e6,
    memory: 48e9,
    sources: ["NVIDIA L40S datasheet", ada],
  },
  "h100-sxm": {
    name: "H100 SXM",
    multiprocessors: 132,
    clock: 1.83e9,
    bandwidth: 3350e9,
    tensorPeak: 989.4e12,
    mmaShare: 0.62,
    l2: 50e6,
    memory: 80e9,
    sources: [hopper, ofHopper],
  },
  h200: {
    name: "H200",
    multiprocessors: 132,
    clock: 1.98e9,
    bandwidth: 4800e9,
    tensorPeak: 989.4e12,
    mmaShare: 0.65,
    l2: 62.9e6,
    memory: 141e9,
    sources: [
      "NVIDIA H200 datasheet",
      hopper,
      "clock, L2 and mma.sync's 644 TFLOP/s: measured, bench/results/gpu-h200.json, card and limits",
    ],
  },
  b200: {
    name: "B200",
    multiprocessors: 148,
    clock: 1.85e9,
    bandwidth: 8000e9,
    tensorPeak: 2250e12,
    mmaShare: 0.25,
    l2: 126e6,
    memory: 180e9,
    sources: [
      "NVIDIA DGX B200 datasheet (an eighth of it; half of the figures with sparsity)",
      "L2: NVIDIA Blackwell Tuning Guide",
      "mma.sync on Blackwell: assumed, at an A100 multiprocessor's 2048 operations per clock; the peak is tcgen05's",
    ],
  },
};
