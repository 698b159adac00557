// Compiled once for each instruction set, which SDAR_ISA names (cmake/isa.cmake).
#include "train/kernels/kernels.h"

#include "train/kernels/attention.h"
#include "train/kernels/tile.h"

#define SDAR_JOIN_(a, b) a##b
#define SDAR_JOIN(a, b) SDAR_JOIN_(a, b)
#define SDAR_TEXT_(a) #a
#define SDAR_TEXT(a) SDAR_TEXT_(a)

namespace sdar::train {

extern const Kernels SDAR_JOIN(kKernels_, SDAR_ISA);
const Kernels SDAR_JOIN(kKernels_, SDAR_ISA) = {
    SDAR_TEXT(SDAR_ISA), kTileRows, kColumns,          tile, exp_row, silu_mul, silu_mul_backward,
    attention_scratch,   attention, attention_backward};

}  // namespace sdar::train
