#include "backend/cuda/library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>

namespace sdar::cuda {
namespace {

std::mutex guard;
Library opened, replaced;

constexpr char kFile[] = "libsdar_cuda.so";
constexpr char kHow[] =
    "; it is built from the sources where CUDA's compiler (nvcc 12.8 or newer) is on the PATH: npm run build:native";

/// Beside the file that holds this code; where that is a prebuilt addon, prebuilds/linux-x64/…, the library may have
/// been built from the same package's sources.
std::string default_file() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<const void*>(&open_library), &info) || !info.dli_fname) return kFile;
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "./" : path.substr(0, slash + 1);
  const std::string beside = folder + kFile, built = folder + "../../build/Release/" + kFile;
  return access(beside.c_str(), R_OK) != 0 && access(built.c_str(), R_OK) == 0 ? built : beside;
}

Library open_file(const std::string& file) {
  Library library{.file = file};
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* why = dlerror();
    return {.problem =
                "the library of the CUDA kernels could not be opened (" + std::string(why ? why : file) + ")" + kHow};
  }
  const auto entry = reinterpret_cast<SdarCudaEntry>(dlsym(handle, kEntry));
  library.interface = entry ? entry(kAbiVersion) : nullptr;
  if (library.interface) return library;
  dlclose(handle);
  return {.problem = file + " is of another version than this engine" + kHow};
}

}  // namespace

Library open_library() {
  const std::lock_guard lock(guard);
  if (replaced.interface) return replaced;
  if (opened.interface) return opened;
  const char* named = std::getenv("SDAR_CUDA_LIBRARY");
  return opened = open_file(named && *named ? named : default_file());
}

void use_interface(const SdarCudaInterface* interface) {
  const std::lock_guard lock(guard);
  replaced = {.interface = interface, .file = "replaced", .problem = {}};
}

}  // namespace sdar::cuda
