// The kernel table of the instruction set that the including file is compiled for.
#pragma once
#include "backend/cpu/kernels/attention_pass.h"
#include "backend/cpu/kernels/rows.h"
#ifdef __aarch64__
#include "backend/cpu/kernels/arm/panel.h"
#include "backend/cpu/kernels/simd/generic.h"
#else
#include "backend/cpu/kernels/x86/panel.h"
#endif
#if defined(__AMX_TILE__) || defined(__AMXTILE__)  // gcc's name, clang's older one
#include "backend/cpu/kernels/amx_panel.h"
#define SDAR_AMX 1
#endif

namespace sdar::cpu {
namespace {

#if defined(__aarch64__)
constexpr AttentionKernels kAttention = make_attention<FloatOperands<Generic>, FloatOperands<Generic>>(false);
#elif !defined(__AVX512F__) || defined(SDAR_DOT8_EVEX)
constexpr AttentionKernels kAttention = make_attention<FloatOperands<Avx2>, FloatOperands<Avx2>>(false);
#elif defined(__AVX512BF16__) && !defined(SDAR_AMX)
constexpr AttentionKernels kAttention = make_attention<FloatOperands<Avx512>, Bf16Operands>(true);
#else  // processors with tiles run bf16 dot products at half the rate of f32 multiply-adds
constexpr AttentionKernels kAttention = make_attention<FloatOperands<Avx512>, FloatOperands<Avx512>>(false);
#endif

constexpr Kernels make_table(const char* isa) {
#ifdef SDAR_BF16
  constexpr uint8_t bf16 = 2;
#else
  constexpr uint8_t bf16 = 4;
#endif
  Kernels table{isa, {4, bf16, kWidenInt8 ? 2 : 1, 1}, prepare, panel, logit_stats, exp_shifted, at_least};
#ifdef SDAR_AMX
  table.panel = TilePanels<HardwareTiles>::run;
  table.panel_group_bytes = kPanelGroupBytes;
#endif
  table.attention = kAttention;
  return table;
}

}  // namespace
}  // namespace sdar::cpu
