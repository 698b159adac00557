// The C interface between the engine and a library that has a device: libsdar_cuda (runtime.cc), or the SIMT executor
// in tests. The engine opens the library on demand and asks it for this table. Everything in here is a plain type; no
// exception crosses it: a function returns 0, or fills the error. A change of anything here, or of the parameters of a
// kernel, takes another kAbiVersion.
#pragma once
#include <cstddef>
#include <cstdint>

namespace sdar::cuda {

constexpr uint32_t kAbiVersion = 9;

extern "C" {

/// Texts end with 0. Codes are those of util/error.h.
struct SdarCudaError {
  char code[32];
  char message[480];
};

struct SdarCudaProperties {
  char name[128];
  int32_t major, minor;  ///< compute capability
  int32_t multiprocessors;
  uint64_t memory;  ///< bytes
};

/// An opened device with a stream of its own; used by one thread at a time.
struct SdarCudaDevice;
/// Launches captured once, to be replayed.
struct SdarCudaGraph;

/// What is issued happens in the order of the calls; only `wait_event` and `allocate` wait for anything.
struct SdarCudaInterface {
  uint32_t version;
  /// CUDA's numbers (13000 is 13.0); 0: no driver answers. `runtime` is what the library was made with.
  int32_t (*versions)(int32_t* driver, int32_t* runtime, SdarCudaError*);
  int32_t (*count)(int32_t* devices, SdarCudaError*);
  int32_t (*properties)(int32_t index, SdarCudaProperties*, SdarCudaError*);

  int32_t (*open)(int32_t index, SdarCudaDevice**, SdarCudaError*);
  void (*close)(SdarCudaDevice*);
  int32_t (*memory)(SdarCudaDevice*, uint64_t* free, uint64_t* total, SdarCudaError*);
  /// 256-byte aligned. OUT_OF_MEMORY.
  int32_t (*allocate)(SdarCudaDevice*, size_t bytes, const char* name, void**, SdarCudaError*);
  void (*release)(SdarCudaDevice*, void*);
  /// Host memory whose copies to and from the device may be issued without waiting.
  int32_t (*allocate_pinned)(SdarCudaDevice*, size_t bytes, void**, SdarCudaError*);
  void (*release_pinned)(SdarCudaDevice*, void*);
  /// The host's side is pinned and stays as it is until the copy is done.
  int32_t (*upload)(SdarCudaDevice*, void* device, const void* host, size_t bytes, SdarCudaError*);
  int32_t (*download)(SdarCudaDevice*, void* host, const void* device, size_t bytes, SdarCudaError*);
  int32_t (*fill)(SdarCudaDevice*, void* device, int32_t byte, size_t bytes, SdarCudaError*);
  /// Event 0 or 1 in the order of calls, and waiting until everything before it is done.
  int32_t (*record_event)(SdarCudaDevice*, int32_t event, SdarCudaError*);
  int32_t (*wait_event)(SdarCudaDevice*, int32_t event, SdarCudaError*);
  /// Timestamp number `index`, from 0 on, takes the time at its place in the order of calls; in a graph at every replay.
  int32_t (*record_timestamp)(SdarCudaDevice*, int32_t index, SdarCudaError*);
  /// Seconds from a timestamp to another, both done.
  int32_t (*elapsed)(SdarCudaDevice*, int32_t from, int32_t to, double* seconds, SdarCudaError*);

  /// `kernel` is a Kernel of kernels.h, `params` its ParamsOf.
  int32_t (*launch)(SdarCudaDevice*, int32_t kernel, const void* params, size_t bytes, SdarCudaError*);
  /// Launches between the two are captured instead of run. Null: the device knows no graphs.
  int32_t (*begin_capture)(SdarCudaDevice*, SdarCudaError*);
  int32_t (*end_capture)(SdarCudaDevice*, SdarCudaGraph**, SdarCudaError*);
  int32_t (*replay)(SdarCudaDevice*, SdarCudaGraph*, SdarCudaError*);
  void (*release_graph)(SdarCudaDevice*, SdarCudaGraph*);
  /// Allocations are checked one by one: do not cut them into smaller ones.
  int32_t checks_bounds;
};

/// What the library exports under kEntry; null for another version than its own.
typedef const SdarCudaInterface* (*SdarCudaEntry)(uint32_t version);
}  // extern "C"

constexpr char kEntry[] = "sdar_cuda_interface";

}  // namespace sdar::cuda
