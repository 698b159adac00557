// Functions that other folders add to the addon, so that it need not know them.
#pragma once
#include <napi.h>

namespace sdar::addon {

/// A static object of this kind has `define` called for each environment that loads the addon.
class Extension {
 public:
  using Define = void (*)(Napi::Env env, Napi::Object exports);
  explicit Extension(Define define) : define_(define), next_(first_) { first_ = this; }

  static void define_all(Napi::Env env, Napi::Object exports) {
    for (const Extension* e = first_; e; e = e->next_) e->define_(env, exports);
  }

 private:
  static inline const Extension* first_ = nullptr;
  Define define_;
  const Extension* next_;
};

}  // namespace sdar::addon
