// The loss of given samples and its gradients, to compare with those of other programs; lib/train/gradients.ts is the contract.

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "addon/convert.h"
#include "addon/extension.h"
#include "addon/task.h"
#include "train/network.h"
#include "train/recipe.h"
#include "util/error.h"

namespace sdar::addon {
namespace {

struct GradientCase {
  std::string folder;
  std::vector<train::Sample> samples;
  std::vector<train::Noise> noise;  ///< of each sample; none: autoregressive
  int32_t block = 1, mask_id = -1;
};

/// Of a tensor.
struct Summary {
  std::string name;
  double norm = 0;
  std::vector<double> first;
};

struct Gradients {
  double loss = 0;
  std::vector<Summary> tensors;
};

constexpr int64_t kFirst = 8;

Gradients compute_gradients(const GradientCase& c) {
  const ModelConfig config = read_config(c.folder);
  train::Compute compute;
  train::Network network(config, compute);
  const std::vector<float> weights = read_parameters(c.folder, config, network.layout());
  const train::TrainingRows rows =
      c.noise.empty() ? autoregressive_rows(c.samples) : sdar_rows(c.samples, c.noise, c.block, c.mask_id);
  std::vector<float> gradients(weights.size());
  Gradients result;
  result.loss = network.loss_and_gradients(weights.data(), rows, gradients.data());
  for (const train::Parameter& p : network.layout().parameters()) {
    const float* g = gradients.data() + p.offset;
    Summary summary{.name = p.name, .norm = 0, .first = {}};
    for (int64_t i = 0; i < p.elements(); i++) summary.norm += double(g[i]) * g[i];
    summary.norm = std::sqrt(summary.norm);
    summary.first.assign(g, g + std::min(kFirst, p.elements()));
    result.tensors.push_back(std::move(summary));
  }
  return result;
}

GradientCase to_gradient_case(const Napi::Object& o) {
  GradientCase c;
  c.folder = string(o, "folder");
  c.block = integer(o, "block", 1);
  c.mask_id = integer(o, "maskId", -1);
  const std::vector<int32_t> lengths = int_array(o, "lengths"), ids = int_array(o, "ids"),
                             answer = int_array(o, "answer"), masked = int_array(o, "masked");
  const Napi::Value levels = o.Get("levels");
  if (!levels.IsTypedArray() || levels.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array)
    throw from_error(o.Env(), code::kInvalidOption, "levels must be a Float64Array");
  const auto p = levels.As<Napi::Float64Array>();
  const bool noisy = p.ElementLength() > 0;
  size_t at = 0;
  for (size_t i = 0; i < lengths.size(); i++) {
    const size_t end = at + static_cast<size_t>(std::max(0, lengths[i]));
    if (end > ids.size() || end > answer.size() || (noisy && (end > masked.size() || i >= p.ElementLength())))
      throw from_error(o.Env(), code::kInvalidOption, "ids, answer, masked and levels must be as long as lengths say");
    const auto part = [&](const std::vector<int32_t>& values) {
      return std::vector<int32_t>(values.begin() + static_cast<std::ptrdiff_t>(at),
                                  values.begin() + static_cast<std::ptrdiff_t>(end));
    };
    const auto flags = [&](const std::vector<int32_t>& values) {
      const std::vector<int32_t> some = part(values);
      std::vector<uint8_t> set(some.size());
      std::transform(some.begin(), some.end(), set.begin(), [](int32_t value) { return uint8_t{value != 0}; });
      return set;
    };
    c.samples.push_back({part(ids), flags(answer)});
    if (noisy) c.noise.push_back({flags(masked), static_cast<float>(p[i])});
    at = end;
  }
  return c;
}

Napi::Value from_gradients(Napi::Env env, Gradients& gradients) {
  auto tensors = Napi::Object::New(env);
  for (const Summary& summary : gradients.tensors) {
    auto first = Napi::Array::New(env, summary.first.size());
    for (uint32_t i = 0; i < summary.first.size(); i++) first.Set(i, summary.first[i]);
    auto tensor = Napi::Object::New(env);
    tensor.Set("norm", summary.norm);
    tensor.Set("first", first);
    tensors.Set(summary.name, tensor);
  }
  auto o = Napi::Object::New(env);
  o.Set("loss", gradients.loss);
  o.Set("gradients", tensors);
  return o;
}

/// lossAndGradients(case)
Napi::Value loss_and_gradients(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsObject())
    throw from_error(env, code::kInvalidOption, "lossAndGradients takes a case");
  return Task<Gradients>::start(
      env, env.Undefined(),
      [c = to_gradient_case(info[0].As<Napi::Object>())](const TaskControl&) { return compute_gradients(c); },
      from_gradients);
}

const Extension extension{[](Napi::Env env, Napi::Object exports) {
  exports.Set("lossAndGradients", Napi::Function::New<loss_and_gradients>(env));
}};

}  // namespace
}  // namespace sdar::addon
