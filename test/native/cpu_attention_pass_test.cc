// Parts of block attention on the CPU: 2^x of its kernels, and the memory of its pages.
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <string>

#include "backend/cpu/attention.h"
#include "backend/cpu/cpu.h"
#include "check.h"

using namespace sdar;
using cpu::attention_kernels;

TEST("2^x of the kernels: relative error 1.5e-7, nothing below 2^-126") {
  for (const std::string& isa : cpu::instruction_sets()) {
    // Two keys with scores 0 and x, values 0 and 1: the row's accumulator is 2^x.
    alignas(64) float q[16] = {1}, slab[2 * 64 * 16] = {}, max[16], sum[256], acc[256], scores[64], correction[16];
    cpu::PagePass pass;
    pass.rows = 1, pass.dim = 16, pass.keys = 2, pass.first = true;
    pass.q = q, pass.slab = reinterpret_cast<const std::byte*>(slab);
    pass.max = max, pass.sum = sum, pass.acc = acc, pass.scores = scores, pass.correction = correction;
    slab[64 * 16 + 16] = 1.0f;
    const auto exp2 = [&](float x) {
      slab[1] = x;
      attention_kernels(isa.c_str()).formats[0].pass(pass);
      return acc[0];
    };
    double worst = 0;
    for (float x = -125.9f; x <= 0; x += 0.00731f) {
      const double exact = std::exp2(static_cast<double>(x));
      worst = std::max(worst, std::abs(exp2(x) - exact) / exact);
    }
    CHECK_NEAR(worst, 0, 1.5e-7);
    CHECK(exp2(0) == 1.0f);
    CHECK(exp2(-126) == 0x1p-126f);
    CHECK(exp2(-130) == 0.0f);
    CHECK(exp2(-1e30f) == 0.0f);
    CHECK(exp2(-std::numeric_limits<float>::infinity()) == 0.0f);
    CHECK(std::isnan(exp2(std::nanf(""))));
  }
}

TEST("pages take memory when they are written, and too many are an error") {
  const auto resident = [] {
    int64_t total = 0, pages = 0;
    std::ifstream("/proc/self/statm") >> total >> pages;
    return pages * 4096;
  };
  ModelShape shape;
  shape.layers = 28, shape.heads = 16, shape.kv_heads = 8, shape.head_dim = 128, shape.context = 4096;
  CHECK(cpu::Attention::page_bytes(shape, KvFormat::f32) == size_t{28} * 2 * 8 * 64 * 128 * 4);
  CHECK(cpu::Attention::page_bytes(shape, KvFormat::bf16) == size_t{28} * 2 * 8 * 64 * 128 * 2);
  CHECK(cpu::Attention::page_bytes(shape, KvFormat::int8) == size_t{28} * 2 * 8 * 64 * (128 + 4));
  cpu::Pool pool(1);
  cpu::Attention attention(pool, attention_kernels("portable"));
  const int64_t before = resident();
  attention.configure(shape, {256, KvFormat::bf16}, 64);  // 1.9 GB
  CHECK(resident() - before < 50'000'000);
  cpu::Attention huge(pool, attention_kernels("portable"));
  CHECK_THROWS("OUT_OF_MEMORY", "KV pages", huge.configure(shape, {int64_t{1} << 24, KvFormat::f32}, 64));
  CHECK_THROWS("OUT_OF_MEMORY", "KV pages", huge.configure(shape, {int64_t{1} << 60, KvFormat::f32}, 64));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
