#include "backend/cuda/library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <mutex>

namespace sdar::cuda {
namespace {

std::mutex guard;
Library opened, replaced;

constexpr char kFile[] = "libsdar_cuda.so";
constexpr char kHow[] =
    "; npm install sdar-engine-cuda has it, and it is built from the sources where CUDA's compiler (nvcc 12.8 or "
    "newer) is on "
    "the PATH: npx sdar build --cuda, in a clone npm run build:native";

/// Beside the file that holds this code.
std::string default_file() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<const void*>(&open_library), &info) || !info.dli_fname) return kFile;
  return file_beside(info.dli_fname);
}

Library open_file(const std::string& file) {
  Library library{.file = file};
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* why = dlerror();
    return {.unavailable =
                "the library of the CUDA kernels could not be opened (" + std::string(why ? why : file) + ")" + kHow};
  }
  const auto entry = reinterpret_cast<SdarCudaEntry>(dlsym(handle, kEntry));
  library.interface = entry ? entry(kAbiVersion) : nullptr;
  if (library.interface) return library;
  dlclose(handle);
  return {.unavailable = file + " is of another version than this engine" + kHow};
}

}  // namespace

std::string file_beside(const std::string& addon) {
  const std::filesystem::path folder = std::filesystem::absolute(addon).parent_path();
  const std::filesystem::path root = folder.parent_path().parent_path();
  if (folder.parent_path().filename() == "prebuilds") {
    for (const auto& file : {root / "build" / "Release" / kFile, root.parent_path() / "sdar-engine-cuda" / kFile}) {
      std::error_code none;
      if (std::filesystem::exists(file, none)) return file;
    }
  }
  return folder / kFile;
}

Library open_library() {
  const std::lock_guard lock(guard);
  if (replaced.interface) return replaced;
  if (opened.interface) return opened;
  const char* named = std::getenv("SDAR_CUDA_LIBRARY");
  if (named && *named) return opened = open_file(named);
#ifdef __APPLE__
  return {.unavailable = "there is no CUDA on macOS"};
#else
  return opened = open_file(default_file());
#endif
}

void use_interface(const SdarCudaInterface* interface) {
  const std::lock_guard lock(guard);
  replaced = {.interface = interface, .file = "replaced", .unavailable = {}};
}

}  // namespace sdar::cuda
