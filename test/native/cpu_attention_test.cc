// Block attention of the CPU backend against plain double loops, and bit for bit against itself.
#include "cpu_attention.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>

#include "check.h"

using namespace sdar;
using namespace attention;

// Chunks are of up to 512 positions: a sequence over three of them, and one over two. Its work grows with the square.
const bool kQuick = std::getenv("SDAR_TEST_QUICK") != nullptr;
const int32_t kThreeChunks = kQuick ? 1100 : 1600, kTwoChunks = kQuick ? 540 : 600;

TEST("attention agrees with plain loops on odd shapes, several sequences per step") {
  const int32_t dims[] = {16, 20, 24, 32, 64, 128}, groups[] = {1, 2, 4, 7}, blocks[] = {1, 2, 3, 4, 8, 16, 33, 64};
  std::mt19937 random(7);
  const auto pick = [&](const auto& from) { return from[random() % std::size(from)]; };
  for (const std::string& isa : kernel_sets()) {
    std::printf("# %s\n", isa.c_str());
    for (int i = 0; i < 24; i++) {
      const KvFormat format = kFormats[i % 3];
      const ModelShape shape = shape_of(1 + static_cast<int32_t>(random() % 2), pick(groups), dims[i / 3 % 6]);
      Device device(shape, format, isa, 1 + i % 2);
      std::vector<Sequence> sequences;
      std::vector<std::vector<float>> outs(3);
      std::vector<int32_t> done(3, 0);
      for (uint32_t j = 0; j < 3; j++) {
        const int32_t block = pick(blocks);
        sequences.push_back(sequence(shape, block, 1 + static_cast<int32_t>(random() % (200 / block)), 100 * i + j));
      }
      for (bool left = true; left;) {
        left = false;
        std::vector<Device::Part> parts;
        for (int j = 0; j < 3; j++) {
          Sequence& s = sequences[j];
          const int32_t rows = s.block * (1 + static_cast<int32_t>(random() % (1 + 60 / s.block)));
          const int32_t end = std::min(done[j] + rows, s.length);
          if (end > done[j]) parts.push_back({&s, done[j], end, &outs[j]});
          done[j] = end;
          left |= end < s.length;
        }
        if (!parts.empty()) device.step(parts);
      }
      for (int j = 0; j < 3; j++) {
        const Sequence& s = sequences[j];
        check_rows(s, outs[j], oracle(s, format, 0, s.length, device), 0, tolerance(format, isa),
                   describe(s, format, isa));
      }
    }
  }
}

TEST("attention deep in the cache, over several chunks") {
  for (const std::string& isa : kernel_sets()) {
    for (const KvFormat format : kFormats) {
      for (const int32_t block : {4, 3, 64}) {
        const ModelShape shape = shape_of(1, 2, 32);
        Device device(shape, format, isa, 3);
        Sequence s = sequence(shape, block, kThreeChunks / block, 9);
        const std::vector<float> out = device.all(s, 640 / block * block);
        for (const int32_t begin : {s.length - block, s.length / 2 / block * block}) {
          const std::vector<double> expected = oracle(s, format, begin, begin + block, device);
          check_rows(s, out, expected, begin, tolerance(format, isa), describe(s, format, isa));
        }
      }
    }
  }
}

TEST("a row is the same bits alone, in one prefill, in chunks, among others, with 1, 2 and 3 threads") {
  for (const std::string& isa : kernel_sets()) {
    for (const KvFormat format : kFormats) {
      for (const int32_t group : {2, 7}) {
        const ModelShape shape = shape_of(group == 2 ? 2 : 1, group, 24);
        std::vector<Sequence> sequences;
        const int32_t blocks[] = {1, 4, 8, 20};
        for (uint32_t i = 0; i < 4; i++) {
          sequences.push_back(sequence(shape, blocks[i], (i == 1 ? kTwoChunks : 80) / blocks[i], 50 + i));
        }
        std::vector<std::vector<float>> expected;
        for (Sequence& s : sequences) expected.push_back(Device(shape, format, isa, 1).all(s, 1000));
        for (int threads = 1; threads <= 3; threads++) {
          for (size_t i = 0; i < sequences.size(); i++) {
            Sequence& s = sequences[i];
            const int32_t rows = threads == 1 ? 3 * s.block : 40 / s.block * s.block / (threads - 1);
            const int32_t step = std::max(rows / s.block, 1) * s.block;
            if (!same_bits(Device(shape, format, isa, threads).all(s, step), expected[i])) {
              check::fail(__FILE__, __LINE__, describe(s, format, isa) + " in steps of " + std::to_string(step));
            }
          }
          // All of them in the same steps.
          Device device(shape, format, isa, threads);
          std::vector<std::vector<float>> outs(sequences.size());
          for (int32_t round = 0; round < 4; round++) {
            std::vector<Device::Part> parts;
            for (size_t i = sequences.size(); i-- > 0;) {
              Sequence& s = sequences[i];
              const auto at = [&](int32_t r) { return s.length * r / 4 / s.block * s.block; };
              parts.push_back({&s, at(round), round == 3 ? s.length : at(round + 1), &outs[i]});
            }
            device.step(parts);
          }
          for (size_t i = 0; i < sequences.size(); i++) {
            CHECK(same_bits(outs[i], expected[i]));
            sequences[i].pages.clear();
          }
        }
      }
    }
  }
}

TEST("a block computed again, after other tokens, leaves no trace") {
  for (const std::string& isa : kernel_sets()) {
    const ModelShape shape = shape_of(2, 2, 64);
    Sequence s = sequence(shape, 8, 12, 3), noise = sequence(shape, 8, 12, 4);
    const std::vector<float> expected = Device(shape, KvFormat::bf16, isa, 2).all(s, 8);
    Device device(shape, KvFormat::bf16, isa, 2);
    std::vector<float> out, ignored;
    for (int32_t p = 0; p < s.length; p += 8) {
      device.step({{&noise, p, p + 8, &ignored}});
      s.pages = noise.pages;  // the same slots
      device.step({{&s, p, p + 8, &out}});
    }
    CHECK(same_bits(out, expected));
  }
}

TEST("a NaN or infinity reaches the rows that see it, and no other") {
  for (const std::string& isa : kernel_sets()) {
    for (const KvFormat format : kFormats) {
      for (const float bad : {kNaN, std::numeric_limits<float>::infinity()}) {
        for (const bool key : {true, false}) {
          const ModelShape shape = shape_of(1, 2, 32);
          Sequence s = sequence(shape, 4, 30, 5);
          const std::vector<float> clean = Device(shape, format, isa, 2).all(s, 120);
          const int32_t at = 71;
          s.qkv[static_cast<size_t>(at) * s.cols() + (2 + !key) * 32 + 7] = bad;
          const std::vector<float> out = Device(shape, format, isa, 2).all(s, 120);
          const size_t before = static_cast<size_t>(at / 4 * 4) * s.out_cols();
          CHECK(std::memcmp(out.data(), clean.data(), before * sizeof(float)) == 0);
          for (int32_t p = at / 4 * 4; p < s.length; p++) {
            const float* row = &out[static_cast<size_t>(p) * s.out_cols()];
            CHECK(std::any_of(row, row + s.out_cols(), [](float x) { return !std::isfinite(x); }));
          }
        }
      }
    }
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
