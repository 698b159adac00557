// The kernel table of the instruction set that the including file is compiled for.
#pragma once
#include "backend/cpu/kernels/rows.h"
#ifdef __aarch64__
#include "backend/cpu/kernels/arm/panel.h"
#else
#include "backend/cpu/kernels/x86/panel.h"
#endif

namespace sdar::cpu {
namespace {

constexpr Kernels make_table(const char* isa) {
#ifdef SDAR_BF16
  constexpr uint8_t bf16 = 2;
#else
  constexpr uint8_t bf16 = 4;
#endif
  return {isa, {4, bf16, kWidenInt8 ? 2 : 1, 1}, prepare, panel, logit_stats, exp_shifted};
}

}  // namespace
}  // namespace sdar::cpu
