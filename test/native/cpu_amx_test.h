// The AMX kernels compiled with scalar emulation of the tile instructions, for machines with AVX-512 BF16.
#pragma once
#include <cstdint>
#include <vector>

#include "backend/cpu/kernels/kernels.h"

namespace amx_emulation {

/// Like avx512amx, emulated.
extern const sdar::cpu::Kernels kKernels;

/// The calling thread's tiles are configured.
bool configured();

enum class Product { int8_signed, int8_unsigned, bf16 };
/// d += a·b by one emulated instruction, without a kernel around it: `rows` of a and d, `depth` rows of b, 16 columns. Rows of 64
/// bytes.
void multiply(Product product, int rows, int depth, const void* a, const void* b, void* d);

}  // namespace amx_emulation
