// Compiled once for each instruction set, which SDAR_ISA names (cmake/isa.cmake).
#include "train/kernels/kernels.h"

#include "train/kernels/attention.h"
#include "train/kernels/pack.h"

#define SDAR_JOIN_(a, b) a##b
#define SDAR_JOIN(a, b) SDAR_JOIN_(a, b)
#define SDAR_TEXT_(a) #a
#define SDAR_TEXT(a) SDAR_TEXT_(a)

namespace sdar::train {

extern const Kernels SDAR_JOIN(kKernels_, SDAR_ISA) = {
    .isa = SDAR_TEXT(SDAR_ISA),
    .products = {products_of<F32>(), products_of<Bf16>()},
    .attention = {attention_of<F32>(), attention_of<Bf16>()},
    .exp_row = exp_row,
    .scale = scale_row,
    .round = round_row,
    .silu_mul = silu_mul,
    .silu_mul_backward = silu_mul_backward,
    .rms_norm = rms_norm,
    .rms_norm_backward = rms_norm_backward,
    .rope = rope,
};

}  // namespace sdar::train
