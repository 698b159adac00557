// Page kernels for AVX-512: f32 operands whatever the format of the pages.
#include "backend/cpu/kernels/attention_avx512_ops.h"

namespace sdar::cpu {

const AttentionKernels kAttentionAvx512 = {
    {{page_pass<FloatOperands<Avx512>, KvFormat::f32>, false},
     {page_pass<FloatOperands<Avx512>, KvFormat::bf16>, false},
     {page_pass<FloatOperands<Avx512>, KvFormat::int8>, false}},
    norm_and_rotate,
    divide,
};

}  // namespace sdar::cpu
