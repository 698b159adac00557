// What a run's results look like to a reader: results.json in, tables and charts out.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "plot.h"

namespace gpu_bench {

/// Figures that others published for their engines, with sources and the commands that give them.
nlohmann::ordered_json published_figures();

/// Tables of all sections, and of what was left out.
std::string markdown(const nlohmann::ordered_json& results);

/// Tokens per second against requests at a time, a chart per shape, a series per block at the first rate.
std::vector<Chart> throughput_charts(const nlohmann::ordered_json& results);

}  // namespace gpu_bench
