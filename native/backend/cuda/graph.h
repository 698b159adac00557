// Launches that were recorded once and run any number of times: one by one, or as a CUDA graph where the device has them.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "backend/cuda/device.h"
#include "backend/step.h"
#include "util/error.h"

namespace sdar::cuda {

class LaunchGraph {
 public:
  /// timed: with timestamps where the kind of work changes.
  explicit LaunchGraph(Device& device, bool timed = false) : device_(device), timed_(timed) {}
  ~LaunchGraph() { device_.release_graph(graph_); }
  LaunchGraph(const LaunchGraph&) = delete;
  LaunchGraph& operator=(const LaunchGraph&) = delete;

  template <Kernel kernel>
  void add(const ParamsOf<kernel>& arguments) {
    static_assert(std::is_trivially_copyable_v<ParamsOf<kernel>>);
    launches_.push_back({kernel, arguments_.size(), sizeof arguments});
    const auto* bytes = reinterpret_cast<const std::byte*>(&arguments);
    arguments_.insert(arguments_.end(), bytes, bytes + sizeof arguments);
  }

  /// A copy to the host's memory, which waits: for a graph that runs once, by run_once().
  void add_download(float* to, const float* from, size_t bytes) {
    launches_.push_back({kDownload, downloads_.size(), bytes});
    downloads_.push_back({to, from});
  }

  /// A kind of work, as a part of StepSeconds; null: none of them.
  using Kind = double StepSeconds::*;
  /// What is added from now on is of this kind.
  void begin_kind(Kind kind) {
    if (!timed_ || (!kinds_.empty() && kinds_.back() == kind)) return;
    launches_.push_back({kTimestamp, kinds_.size(), 0});
    kinds_.push_back(kind);
  }
  /// Adds what each kind took in the last run, which is done, up to the last change.
  void add_seconds(StepSeconds& to) const {
    for (size_t i = 0; i + 1 < kinds_.size(); i++)
      if (kinds_[i]) to.*kinds_[i] += device_.elapsed(static_cast<int32_t>(i), static_cast<int32_t>(i) + 1);
  }

  /// The first time one by one, so that the device has loaded all kernels; captured the second time. When the device
  /// has no memory left for a graph, or cannot capture, it makes no more of any list.
  void run() {
    if (graph_ || (loaded_ && device_.has_graphs())) {
      try {
        // A library whose dependent launch was refused asks for no more of them: the second time they may be captured.
        if (graph_ || capture() || capture()) return device_.replay(graph_);
        device_.give_up_graphs();
      } catch (const Error& e) {
        if (e.code() != code::kOutOfMemory) throw;
        device_.give_up_graphs();
        device_.release_graph(std::exchange(graph_, nullptr));
      }
    }
    launch_all();
    loaded_ = true;
  }
  void run_once() const { launch_all(); }

 private:
  static constexpr Kernel kTimestamp{-1}, kDownload{-2};
  struct Launch {
    Kernel kernel;        ///< or kTimestamp, kDownload
    size_t begin, bytes;  ///< of its arguments; the timestamp's or the download's number
  };
  /// False when the device cannot capture these launches, though it may run them one by one.
  bool capture() {
    device_.begin_capture();
    try {
      launch_all();
      graph_ = device_.end_capture();
      return true;
    } catch (const Error& e) {
      device_.abandon_capture();  // or all that is asked for later would be captured
      if (e.code() == code::kOutOfMemory) throw;
      return false;
    }
  }
  void launch_all() const {
    for (const Launch& l : launches_) {
      if (l.kernel == kTimestamp) {
        device_.timestamp(static_cast<int32_t>(l.begin));
      } else if (l.kernel == kDownload) {
        device_.download_now(downloads_[l.begin].to, downloads_[l.begin].from, l.bytes);
      } else {
        device_.launch(l.kernel, arguments_.data() + l.begin, l.bytes);
      }
    }
  }

  struct Download {
    float* to;
    const float* from;
  };

  Device& device_;
  std::vector<Launch> launches_;
  std::vector<Download> downloads_;
  std::vector<std::byte> arguments_;
  std::vector<Kind> kinds_;  ///< from each timestamp on
  SdarCudaGraph* graph_ = nullptr;
  bool loaded_ = false;  ///< all kernels, by the device
  bool timed_;
};

}  // namespace sdar::cuda
