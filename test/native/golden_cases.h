// Cases of test/golden/NAME.golden.json as requests.
#pragma once
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/request.h"
#include "util/error.h"

namespace golden {

inline nlohmann::json cases(const std::string& name) {
  std::ifstream file("test/golden/" + name + ".golden.json");
  return nlohmann::json::parse(file)["cases"];
}

inline sdar::Strategy strategy(const std::string& name) {
  const char* names[] = {"low_confidence_dynamic", "low_confidence_static", "sequential", "entropy_bounded"};
  for (int i = 0; i < 4; i++)
    if (name == names[i]) return static_cast<sdar::Strategy>(i);
  throw sdar::Error("TEST", "unknown strategy " + name);
}

inline sdar::Request request_of(const nlohmann::json& c) {
  sdar::Request r;
  r.tokens = c["tokens"].get<std::vector<int32_t>>();
  r.max_tokens = c["max_tokens"];
  r.block_length = c["B"];
  r.denoise.strategy = strategy(c["strategy"]);
  if (c.contains("steps") && !c["steps"].is_null()) r.denoise.steps = c["steps"];
  r.denoise.threshold = c.value("tau", 0.9f);
  r.denoise.entropy_bound = c.value("gamma", 0.35f);
  return r;
}

}  // namespace golden
