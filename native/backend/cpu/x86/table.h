// The kernel table of the instruction set that the including file is compiled for.
#pragma once
#include "backend/cpu/kernels.h"
#include "backend/cpu/x86/panel.h"
#include "backend/cpu/x86/rows.h"

namespace sdar::cpu {
namespace {

constexpr Kernels make_table(const char* isa) {
#ifdef __AVX512BF16__
  constexpr uint8_t bf16 = 2;
#else
  constexpr uint8_t bf16 = 4;
#endif
  return {isa, {4, bf16, kWidenInt8 ? 2 : 1, 1}, prepare, panel, logit_stats, exp_shifted};
}

}  // namespace
}  // namespace sdar::cpu
