// What a configuration may say beyond sizes: how positions are turned, and features that this engine does not compute.
#pragma once
#include "backend/backend.h"
#include "model/config_fields.h"

namespace sdar {

/// Throws Error(UNSUPPORTED_MODEL), naming the field, for what would change the arithmetic and is not implemented.
void refuse_variants(const Fields& fields);

/// rope_theta and rope_scaling (rope_parameters in newer files) of `shape`, whose head_dim and context are set; YaRN
/// with original_max_position_embeddings makes the context `factor` times that where max_position_embeddings is less,
/// as Qwen3 documents it.
void read_rope(const Fields& fields, ModelShape& shape);

}  // namespace sdar
