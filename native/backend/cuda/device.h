// A GPU as the host side sees it: the C interface with exceptions, and memory that is cut from one allocation.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/cuda/abi/abi.h"
#include "backend/cuda/kernels/kernels.h"

namespace sdar::cuda {

/// Throws Error: OUT_OF_MEMORY, DEVICE_FAILED. After a DEVICE_FAILED every later call throws it again: a GPU's errors
/// stick.
class Device {
 public:
  Device(const SdarCudaInterface& interface, int32_t index);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const SdarCudaProperties& properties() const { return properties_; }
  int32_t index() const { return index_; }
  uint64_t free_memory() const;

  /// `advice` ends the message of an OUT_OF_MEMORY.
  void* allocate(size_t bytes, const std::string& name, const std::string& advice = {});
  void release(void* memory) noexcept;
  void* allocate_pinned(size_t bytes);
  void release_pinned(void* memory) noexcept;

  void upload(void* to, const void* pinned, size_t bytes);
  void download(void* pinned, const void* from, size_t bytes);
  void fill(void* to, int byte, size_t bytes);
  void record_event(int32_t place);
  void wait_event(int32_t place);
  void timestamp(int32_t index);
  /// Seconds from a timestamp to another, both done.
  double elapsed(int32_t from, int32_t to);
  /// Copies of any host memory; they wait.
  void upload_now(void* to, const void* from, size_t bytes);
  void download_now(void* to, const void* from, size_t bytes);

  void launch(Kernel kernel, const void* arguments, size_t bytes);
  /// Launches and waits; false when the GPU refuses.
  bool can_launch(Kernel kernel, const void* arguments, size_t bytes);
  /// The same; throws Error(UNSUPPORTED_DEVICE) with how to build the library when the GPU cannot run it.
  void try_launch(Kernel kernel, const void* arguments, size_t bytes);
  bool has_graphs() const { return has_graphs_; }
  /// No more graphs are made from now on.
  void give_up_graphs() { has_graphs_ = false; }
  bool checks_bounds() const { return interface_.checks_bounds != 0; }
  /// Errors between the two do not stick: they may be of the capture alone.
  void begin_capture();
  SdarCudaGraph* end_capture();
  /// After an error of a capture: later launches run again.
  void abandon_capture() noexcept;
  void replay(SdarCudaGraph* graph);
  void release_graph(SdarCudaGraph* graph) noexcept;

 private:
  bool launches(Kernel kernel, const void* arguments, size_t bytes, SdarCudaError& error);
  std::string named() const { return "cuda:" + std::to_string(index_) + " (" + properties_.name + ")"; }
  template <class F, class... A>
  void call(F function, A... arguments) const;

  const SdarCudaInterface& interface_;
  int32_t index_;
  bool has_graphs_;
  bool capturing_ = false;
  SdarCudaProperties properties_{};
  SdarCudaDevice* device_ = nullptr;
  mutable std::string failure_;  ///< why the GPU can no longer be used
  void* staging_ = nullptr;      ///< pinned, for copies of other memory
};

/// Memory that is freed with the arena, 256-byte aligned. What `reserve` allocated is handed out by `take`; what does
/// not fit any more gets an allocation of its own.
class Arena {
 public:
  explicit Arena(Device& device) : device_(device) {}
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  static constexpr size_t kAlignment = 256;
  static constexpr size_t padded(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
  void reserve(size_t bytes, const std::string& name, const std::string& advice);
  void* take(size_t bytes, const std::string& name);
  template <class T>
  T* take(size_t count, const std::string& name) {
    return static_cast<T*>(take(count * sizeof(T), name));
  }

 private:
  Device& device_;
  std::vector<void*> allocations_;
  std::byte* next_ = nullptr;
  size_t left_ = 0;
};

/// Whether gemm_warpgroup can stand in for gemm on this GPU (verify_gemm.cc). Runs gemm and gemm_warpgroup on the same matrices, of all formats, epilogues and tiles. True when every bit of the
/// results is equal: only then may the number of tokens decide which of the two computes. False also when the library
/// has no warpgroup code for this GPU or the GPU refuses it. Throws Error: OUT_OF_MEMORY, DEVICE_FAILED.
bool warpgroup_gemm_is_bit_exact(Device& device);

}  // namespace sdar::cuda
