#include "train/projection.h"

#include "train/lora.h"
#include "train/ops.h"
#include "util/half.h"

namespace sdar::train {
namespace {

constexpr int64_t kElementChunk = 16384;

void multiply_by(Compute& compute, float factor, float* x, int64_t n) {
  compute.split(n, kElementChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) x[i] *= factor;
  });
}

}  // namespace

void Tensors::begin(const float* trained, float* gradients) {
  trained_ = trained;
  gradients_ = gradients;
  if (adaptation_) adaptation_->begin(trained);
}

const float* Tensors::at(const Place& place, int64_t elements) {
  if (place.kind == Place::trained) return trained_ + place.offset;
  if (place.kind == Place::frozen) return adaptation_->frozen() + place.offset;
  const uint16_t* half = adaptation_->frozen_bf16() + place.offset;
  float* wide = grown(wide_, elements);
  compute_.split(elements, kElementChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) wide[i] = bf16_to_f32(half[i]);
  });
  return wide;
}

Operand Tensors::matrix(const Place& place, int64_t elements) {
  if (place.kind == Place::frozen_bf16 && compute_.format() == Format::bf16)
    return {adaptation_->frozen_bf16() + place.offset, Format::bf16};
  return at(place, elements);
}

const float* Tensors::reduce(const Projection& p, const Operand& x, int64_t m) {
  const int64_t rank = adaptation_->rank();
  float* low = grown(low_, m * rank);
  linear(compute_, x, m, p.in, rank, at(p.a, rank * p.in), low);
  multiply_by(compute_, adaptation_->scale(), low, m * rank);
  return low;
}

void Tensors::project(const Projection& p, const Operand& x, int64_t m, float* y, const float* onto) {
  linear(compute_, x, m, p.in, p.out, matrix(p.weight, p.out * p.in), y, onto);
  if (p.bias) add_bias(compute_, at(p.bias, p.out), m, p.out, y);
  if (!p.a) return;
  const float* low = reduce(p, x, m);
  linear(compute_, low, m, adaptation_->rank(), p.out, at(p.b, p.out * adaptation_->rank()), y, y);
}

void Tensors::project_operand(const Projection& p, const Operand& x, int64_t m, const OperandOut& y, float* spare) {
  if (y.format == Format::f32) return project(p, x, m, static_cast<float*>(y.data));
  project(p, x, m, spare);
  compute_.split(m * p.out, kElementChunk, [&](int64_t begin, int64_t end) {
    compute_.kernels().round(spare + begin, end - begin, y.at(begin));
  });
}

void Tensors::project_backward(const Projection& p, const Operand& x, const Operand& dy, int64_t m, float* dx,
                               bool add) {
  linear_backward(compute_, x, dy, m, p.in, p.out, matrix(p.weight, p.out * p.in), dx, add, gradient(p.weight));
  if (float* d_bias = gradient(p.bias)) add_bias_backward(compute_, dy, m, p.out, d_bias);
  if (!p.a) return;
  const int64_t rank = adaptation_->rank();
  const float* low = reduce(p, x, m);
  float* d_low = grown(d_low_, m * rank);
  linear_backward(compute_, low, dy, m, rank, p.out, at(p.b, p.out * rank), d_low, false, gradient(p.b));
  multiply_by(compute_, adaptation_->scale(), d_low, m * rank);
  linear_backward(compute_, x, d_low, m, p.in, rank, at(p.a, rank * p.in), dx, true, gradient(p.a));
}

}  // namespace sdar::train
