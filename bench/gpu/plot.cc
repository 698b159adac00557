#include "plot.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace gpu_bench {
namespace {

constexpr double kWidth = 520, kHeight = 400, kLeft = 70, kRight = 20, kTop = 44, kBottom = 54;
constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"};

std::string print(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return text;
}

std::string escaped(const std::string& words) {
  std::string text;
  for (const char c : words) text += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return text;
}

std::string label(double x, double y, const std::string& words, const char* anchor, const char* more = "") {
  return print("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>", x, y, anchor, more) + escaped(words) + "</text>\n";
}

/// The power of `base` at or below v; above it with `up`.
double power(double v, double base, bool up) {
  const double exponent = std::log(v) / std::log(base);
  return std::pow(base, up ? std::ceil(exponent - 1e-9) : std::floor(exponent + 1e-9));
}

/// A logarithmic axis between the powers of `base` that enclose the values.
struct Scale {
  double low = 1, high = 2, begin, end;
  Scale(const std::vector<double>& values, double base, double b, double e) : begin(b), end(e) {
    if (values.empty()) return;
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    low = power(*least, base, false);
    high = std::max(power(*most, base, true), low * base);
  }
  double at(double v) const { return begin + std::log(v / low) / std::log(high / low) * (end - begin); }
};

std::string draw(const Chart& chart) {
  std::vector<double> xs, ys;
  for (const Series& s : chart.series) {
    for (const auto& [x, y] : s.points) xs.push_back(x), ys.push_back(y);
  }
  const double right = kWidth - kRight, bottom = kHeight - kBottom;
  const Scale x(xs, 2, kLeft, right), y(ys, 10, bottom, kTop);
  std::string svg = label(kLeft, 24, chart.title, "start", " font-weight=\"bold\"");
  for (double v = x.low; v <= x.high * 1.001; v *= 2) {
    svg += print("<path d=\"M%.1f %.1fV%.1f\" stroke=\"#e4e4e4\"/>\n", x.at(v), kTop, bottom);
    svg += label(x.at(v), bottom + 18, print("%g", v), "middle");
  }
  for (double power = y.low; power <= y.high * 1.001; power *= 10) {
    for (double step : {1.0, 2.0, 5.0}) {
      const double v = power * step;
      if (v > y.high * 1.001) break;
      svg += print("<path d=\"M%.1f %.1fH%.1f\" stroke=\"#e4e4e4\"/>\n", kLeft, y.at(v), right);
      svg += label(kLeft - 8, y.at(v) + 4, print("%g", v), "end");
    }
  }
  svg += print("<path d=\"M%.1f %.1fV%.1fH%.1f\" fill=\"none\" stroke=\"#555\"/>\n", kLeft, kTop, bottom, right);
  svg += label((kLeft + right) / 2, kHeight - 14, chart.x_label, "middle");
  svg += label(0, 0, chart.y_label, "middle",
               print(" transform=\"translate(18 %.1f) rotate(-90)\"", (kTop + bottom) / 2).c_str());
  if (xs.empty()) svg += label((kLeft + right) / 2, (kTop + bottom) / 2, "nothing was measured", "middle");
  for (size_t i = 0; i < chart.series.size(); i++) {
    const Series& s = chart.series[i];
    const char* colour = kColours[i % std::size(kColours)];
    std::string path;
    for (const auto& [px, py] : s.points) path += print("%s%.1f %.1f", path.empty() ? "M" : "L", x.at(px), y.at(py));
    if (!path.empty())
      svg += "<path d=\"" + path + "\" fill=\"none\" stroke-width=\"2\" stroke=\"" + colour + "\"" +
             (s.dashed ? " stroke-dasharray=\"6 4\"" : "") + "/>\n";
    for (const auto& [px, py] : s.points)
      svg += print("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x.at(px), y.at(py), colour);
    const double row = bottom - 14.0 - 18.0 * static_cast<double>(chart.series.size() - 1 - i);
    svg += print("<path d=\"M%.1f %.1fh24\" stroke-width=\"2\" stroke=\"%s\"/>\n", right - 150, row - 4, colour);
    svg += label(right - 120, row, s.name, "start");
  }
  return svg;
}

}  // namespace

std::string draw_charts(const std::vector<Chart>& charts) {
  const double width = kWidth * static_cast<double>(std::max<size_t>(charts.size(), 1));
  std::string svg = print(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\" "
      "font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
      width, kHeight, width, kHeight);
  for (size_t i = 0; i < charts.size(); i++) {
    svg += print("<g transform=\"translate(%g 0)\">\n", kWidth * static_cast<double>(i)) + draw(charts[i]) + "</g>\n";
  }
  return svg + "</svg>\n";
}

}  // namespace gpu_bench
