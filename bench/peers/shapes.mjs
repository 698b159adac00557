// Shapes that both sides know by name; every one has rope theta 1e6 and eps 1e-6.
export const shapes = {
  "sdar-1.7b": {
    hidden: 2048,
    intermediate: 6144,
    layers: 28,
    heads: 16,
    kv_heads: 8,
    head_dim: 128,
    vocab: 151936,
    tied: true,
  },
  "sdar-4b": {
    hidden: 2560,
    intermediate: 9728,
    layers: 36,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
    vocab: 151936,
    tied: true,
  },
  "sdar-8b": {
    hidden: 4096,
    intermediate: 12288,
    layers: 36,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
    vocab: 151936,
    tied: false,
  },
};
