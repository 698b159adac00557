// A checkpoint's settings, read and validated: config.json, generation_config.json and, for the mask id, the
// tokenizer's files.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/formats.h"

namespace sdar {

/// How a model writes: blocks that are denoised, or a token at a time, where the row of position p decides p + 1.
enum class Decoding : uint8_t { block_diffusion, autoregressive };
inline constexpr std::array kDecodings{"block_diffusion", "autoregressive"};

struct ModelConfig {
  ModelShape shape;        ///< intermediate is 0 when no layer is dense and config.json does not say
  std::string model_type;  ///< sdar, sdar_moe, qwen3, qwen3_moe
  Decoding decoding = Decoding::block_diffusion;
  DType dtype = DType::bf16;           ///< f32 when torch_dtype (or dtype) is "float32"
  bool tied = false;                   ///< the head is the embedding
  int32_t block_size = 4;              ///< default block length; 1 where autoregressive
  int32_t mask_token_id = -1;          ///< -1: autoregressive, without one
  std::vector<int32_t> end_token_ids;  ///< may be empty
  bool norm_topk_prob = false;
  std::vector<bool> sparse;  ///< [layers]: the layer's MLP is a mixture of experts
};

/// `folder` holds a checkpoint in the Hugging Face layout. Throws Error naming file, field, value and what is allowed:
/// FILE_NOT_FOUND, FILE_UNREADABLE, CONFIG_INVALID, UNSUPPORTED_MODEL.
ModelConfig read_config(const std::string& folder);

}  // namespace sdar
