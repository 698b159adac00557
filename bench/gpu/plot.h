// A line chart as SVG.
#pragma once
#include <string>
#include <vector>

namespace gpu_bench {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  ///< x > 0, y > 0, x ascending
  bool dashed = false;
};
struct Chart {
  std::string title, x_label, y_label;
  std::vector<Series> series;
};

/// Charts side by side, x in powers of two, y in powers of ten. One without points says so.
std::string draw_charts(const std::vector<Chart>& charts);

}  // namespace gpu_bench
