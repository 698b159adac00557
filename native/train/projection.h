// Where the network finds its tensors, which are trained or frozen, and its linear layers, with a bias and an adapter
// where they have one.
#pragma once
#include <cstdint>
#include <vector>

#include "train/compute.h"

namespace sdar::train {

class Adaptation;

/// A tensor's place, in floats from where its kind begins; without one there is no such tensor.
struct Place {
  enum Kind : uint8_t { none, trained, frozen, frozen_bf16 };
  Kind kind = none;
  int64_t offset = 0;

  explicit operator bool() const { return kind != none; }
};

/// y [m, out] = x [m, in] · weightᵀ + bias + scale · (x · aᵀ) · bᵀ; weight [out, in], a [rank, in], b [out, rank].
struct Projection {
  int64_t in = 0, out = 0;
  Place weight, bias, a, b;
};

/// The tensors of a pass. Those that are frozen are an Adaptation's, which must outlive it.
class Tensors {
 public:
  Tensors(Compute& compute, Adaptation* adaptation) : compute_(compute), adaptation_(adaptation) {}

  /// `trained` are the weights of the passes from here on; `gradients` of the same layout, or null.
  void begin(const float* trained, float* gradients);

  /// `elements` of a tensor from its place on; those held as bf16 are there until the next call.
  const float* at(const Place& place, int64_t elements);
  /// Null where the tensor is frozen.
  float* gradient(const Place& place) const {
    return place.kind == Place::trained ? gradients_ + place.offset : nullptr;
  }

  /// y, or onto + y, where `onto` [m, out] may be y.
  void project(const Projection& p, const Operand& x, int64_t m, float* y, const float* onto = nullptr);
  /// The same in the format of products, by way of `spare` [m, out] where that isn't f32.
  void project_operand(const Projection& p, const Operand& x, int64_t m, const OperandOut& y, float* spare);
  /// dx is written, or added to where `add`; gradients are added to.
  void project_backward(const Projection& p, const Operand& x, const Operand& dy, int64_t m, float* dx, bool add);

 private:
  /// scale · x [m, in] · aᵀ, to [m, rank].
  const float* reduce(const Projection& p, const Operand& x, int64_t m);
  /// As at(), for products.
  Operand matrix(const Place& place, int64_t elements);

  Compute& compute_;
  Adaptation* adaptation_;
  const float* trained_ = nullptr;
  float* gradients_ = nullptr;
  Buffer wide_, low_, d_low_;
};

}  // namespace sdar::train
