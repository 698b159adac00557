#include "report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

namespace gpu_bench {

using Json = nlohmann::ordered_json;

namespace {

using Row = std::vector<std::string>;

std::string fixed(double v, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, v);
  return text;
}
/// Three significant digits, no exponent.
std::string number(const Json& v) {
  if (!v.is_number()) return "–";
  const double d = v;
  return fixed(d, std::abs(d) >= 100 ? 0 : std::abs(d) >= 10 ? 1 : std::abs(d) >= 1 ? 2 : 3);
}
std::string percent(const Json& v) { return v.is_number() ? fixed(100 * v.get<double>(), 0) + " %" : "–"; }
std::string text(const Json& v) { return v.is_string() ? v.get<std::string>() : v.dump(); }
const Json& at(const Json& j, const char* key) {
  static const Json null;
  return j.is_object() && j.contains(key) ? j[key] : null;
}

std::string table(const std::vector<Row>& rows) {
  std::string out;
  for (size_t i = 0; i < rows.size(); i++) {
    out += "|";
    for (const std::string& cell : rows[i]) out += " " + cell + " |";
    out += "\n";
    if (i > 0) continue;
    out += "|";
    for (size_t c = 0; c < rows[0].size(); c++) out += "---|";
    out += "\n";
  }
  return out + "\n";
}

std::string oracle(const Json& o) {
  if (o.is_null()) return "";
  std::string out = "## Kernels against their oracle\n\n" + o["passed"].dump() + " passed, " + o["failed"].dump() +
                    " failed, " + o["skipped"].dump() + " skipped (accesses are counted on the host alone), " +
                    number(o["seconds"]) + " s\n\n";
  for (const Json& failure : o["failures"]) out += "- `" + text(failure) + "`\n";
  return out + (o["failures"].empty() ? "" : "\n");
}

std::string limits(const Json& l) {
  if (l.is_null()) return "";
  std::string out = "## The device's limits, measured\n\n";
  return out + table({{"copy, read + written", "read", "mma.sync bf16", "cuBLASLt bf16, 8192³"},
                      {number(l["copy"].get<double>() / 1e9) + " GB/s", number(l["read"].get<double>() / 1e9) + " GB/s",
                       number(l["mma"].get<double>() / 1e12) + " TFLOP/s",
                       at(l, "cublasLt").is_number() ? number(l["cublasLt"].get<double>() / 1e12) + " TFLOP/s" : "–"}});
}

std::string kernels(const Json& list) {
  if (!list.is_array() || list.empty()) return "";
  std::vector<Row> rows{
      {"kernel", "shape", "weights", "size", "µs", "of bandwidth", "of mma peak", "cuBLASLt µs", "of cuBLASLt"}};
  for (const Json& k : list)
    rows.push_back({text(k["kernel"]), text(k["shape"]), text(k["weights"]), text(k["size"]), number(k["microseconds"]),
                    percent(k["ofBandwidth"]), percent(k["ofTensorPeak"]), number(at(k, "cublasLtMicroseconds")),
                    percent(at(k, "ofCublasLt"))});
  return "## Kernels\n\nShares of the measured bandwidth, the larger of the two above, and of the measured mma.sync "
         "rate; weights rotate, so "
         "that L2 holds none.\n\n" +
         table(rows);
}

std::string cell(const Json& r) {
  if (r.is_null()) return "–";
  return number(r["tokensPerSecond"]) + " (" + number(r["stepMs"]) + " ms)" + (r.contains("error") ? " failed" : "");
}

/// Shapes down, batches across.
std::string closed_loop(const Json& list) {
  if (!list.is_array() || list.empty()) return "";
  std::set<int> batches;
  for (const Json& r : list) batches.insert(r["batch"].get<int>());
  std::vector<Row> rows{{"shape", "per forward", "block"}};
  for (int batch : batches) rows[0].push_back("batch " + std::to_string(batch));
  std::vector<Json> keys;
  for (const Json& r : list) {
    const Json key = Json::array({r["shape"], r["forced"], r["block"]});
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
  }
  for (const Json& key : keys) {
    Row row{text(key[0]), text(key[1]), text(key[2])};
    for (int batch : batches) {
      Json found;
      for (const Json& r : list)
        if (r["shape"] == key[0] && r["forced"] == key[1] && r["block"] == key[2] && r["batch"] == batch) found = r;
      row.push_back(cell(found));
    }
    rows.push_back(row);
  }
  return "## Engine, requests at a time\n\nTokens per second (time of a step); random weights, tokens per forward "
         "forced; prompts are part of it.\n\n" +
         table(rows);
}

/// With each switch on, beside the same case with all off.
std::string switched(const Json& engine) {
  const Json& list = at(engine, "switched");
  if (!list.is_array() || list.empty()) return "";
  std::vector<Row> rows{{"shape", "block", "per forward", "batch", "switches on", "tokens/s (step)", "all off"}};
  for (const Json& r : list) {
    Json off;
    for (const Json& c : engine["closed"])
      if (c["shape"] == r["shape"] && c["forced"] == r["forced"] && c["block"] == r["block"] &&
          c["batch"] == r["batch"])
        off = c;
    rows.push_back({text(r["shape"]), text(r["block"]), text(r["forced"]), text(r["batch"]), text(r["switches"]),
                    cell(r), cell(off)});
  }
  return "## Engine, warpgroup MMA and programmatic dependent launch\n\nOff by default (SDAR_CUDA_WARPGROUP_MMA, "
         "SDAR_CUDA_PDL); the tables above are without.\n\n" +
         table(rows);
}

std::string triple(const Json& p) { return number(p["p50"]) + " / " + number(p["p90"]) + " / " + number(p["p99"]); }

std::string poisson(const Json& list) {
  if (!list.is_array() || list.empty()) return "";
  std::vector<Row> rows{{"shape", "block", "per forward", "load", "requests/s", "tokens/s", "first token ms",
                         "between deliveries ms", "per token ms"}};
  for (const Json& r : list)
    rows.push_back({text(r["shape"]), text(r["block"]), text(r["forced"]), percent(r["load"]),
                    number(r["requestsPerSecond"]), number(r["tokensPerSecond"]), triple(r["firstTokenMs"]),
                    triple(r["betweenDeliveriesMs"]), triple(r["perTokenMs"])});
  return "## Engine, Poisson arrivals\n\nPercentiles 50 / 90 / 99; load: share of what the closed loop reached.\n\n" +
         table(rows);
}

std::string published(const Json& results) {
  std::vector<Row> rows{{"engine", "model", "block", "batch", "card", "tokens/s", "tokens per forward", "source"}};
  for (const Json& p : results["published"])
    rows.push_back({text(p["engine"]), text(p["model"]), text(p["block"]), text(p["batch"]), text(p["card"]),
                    text(p["tokensPerSecond"]), "not given", text(p["source"])});
  for (const Json& r : at(at(results, "engine"), "closed"))
    if (r["shape"] == "sdar-4b" && r["block"] == 4 && r["batch"] == 128)
      rows.push_back({"this one, measured", "SDAR-4B, random weights", "4", "128",
                      text(at(at(results, "card"), "name")), number(r["tokensPerSecond"]),
                      number(r["tokensPerForward"]), "this run"});
  std::string out = "## Beside published figures\n\n" + table(rows) + "The commands that give them:\n\n";
  std::set<std::string> told;
  for (const Json& p : results["published"])
    if (told.insert(text(p["command"])).second) out += "- " + text(p["engine"]) + ": `" + text(p["command"]) + "`\n";
  return out + "\n";
}

}  // namespace

std::string markdown(const Json& results) {
  std::string out = "# sdar-gpu-bench\n\n";
  const Json& card = at(results, "card");
  if (card.is_object()) {
    out += text(card["name"]) + ", " + text(card["architecture"]) + ", " + text(card["multiprocessors"]) +
           " multiprocessors, driver " + text(card["driver"]) + ", CUDA " + text(card["runtime"]) + "\n\n";
  }
  out += "Seconds: " + results["seconds"].dump() + "\n\n";
  out += oracle(at(results, "oracle")) + limits(at(results, "limits")) + kernels(at(results, "kernels"));
  out += closed_loop(at(at(results, "engine"), "closed")) + switched(at(results, "engine")) +
         poisson(at(at(results, "engine"), "poisson"));
  out += published(results);
  if (!results["skipped"].empty()) out += "## Left out\n\n";
  for (const Json& what : results["skipped"]) out += "- " + text(what) + "\n";
  return out;
}

std::vector<Chart> throughput_charts(const Json& results) {
  std::vector<Chart> charts;
  const Json& closed = at(at(results, "engine"), "closed");
  if (!closed.is_array() || closed.empty())
    return {{"Tokens per second", "requests at a time", "tokens per second", {}}};
  const Json rate = closed[0]["forced"];
  for (const Json& r : closed) {
    if (r["forced"] != rate || r["tokensPerSecond"].get<double>() <= 0) continue;
    const std::string title = text(r["shape"]) + ": " + text(rate) + " tokens per forward",
                      name = "block " + text(r["block"]);
    auto chart = std::find_if(charts.begin(), charts.end(), [&](const Chart& c) { return c.title == title; });
    if (chart == charts.end()) chart = charts.insert(chart, {title, "requests at a time", "tokens per second", {}});
    auto series =
        std::find_if(chart->series.begin(), chart->series.end(), [&](const Series& s) { return s.name == name; });
    if (series == chart->series.end()) series = chart->series.insert(series, {name, {}, false});
    series->points.emplace_back(r["batch"].get<double>(), r["tokensPerSecond"].get<double>());
  }
  for (Chart& chart : charts)
    for (Series& series : chart.series) std::sort(series.points.begin(), series.points.end());
  return charts;
}

}  // namespace gpu_bench
