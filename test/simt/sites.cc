#include "simt/sites.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <set>
#include <sstream>
#include <stdexcept>

#ifndef SDAR_SOURCE_ROOT
#error "the build defines SDAR_SOURCE_ROOT: the project's folder with a slash at its end"
#endif

namespace sdar::cuda_host {
namespace {

constexpr uint32_t kSlots = 1 << 14;
constexpr size_t kMostKernels = 64;

/// SDAR_MUTANT.
struct Mutant {
  std::string kernel, place;
  Change change = Change::none;

  Mutant() {
    const char* text = std::getenv("SDAR_MUTANT");
    if (!text) return;
    std::string what;
    std::istringstream words(text);
    words >> kernel >> place >> what;
    change = what == "drop" ? Change::drop : what == "more" ? Change::more : what == "less" ? Change::less : change;
    if (change == Change::none) throw std::runtime_error("SDAR_MUTANT: expected KERNEL PLACE drop|more|less");
  }
};

struct Kernel {
  std::string name;
  std::set<uint64_t> seeds;
};

struct Table {
  std::array<const void*, kSlots> key{};
  std::array<Site*, kSlots> site{};
  std::deque<Site> all;
  std::vector<Kernel> kernels;
  size_t present = 0;  // the kernel that runs
  Mutant mutant;

  ~Table() {
    const char* path = std::getenv("SDAR_SITES");
    std::FILE* file = path ? std::fopen(path, "w") : nullptr;
    if (!file) return;
    std::set<std::string> lines;
    for (size_t k = 0; k < kernels.size(); k++) {
      for (uint64_t seed : kernels[k].seeds) lines.insert("order " + kernels[k].name + " " + std::to_string(seed));
      for (const Site& s : all) {
        if (s.kind != SiteKind::access && s.place.starts_with("native/") && s.kernels >> k & 1)
          lines.insert("site " + kernels[k].name + " " + name_of(s.kind) + " " + s.place);
      }
    }
    for (const std::string& line : lines) std::fprintf(file, "%s\n", line.c_str());
    std::fclose(file);
  }

  Change change_of(const Site& s) const {
    const bool meant = mutant.change != Change::none && s.kind != SiteKind::access && !kernels.empty() &&
                       kernels[present].name == mutant.kernel && s.place == mutant.place;
    return meant ? mutant.change : Change::none;
  }
};
Table& table() {
  static Table t;
  return t;
}

Site& add(Table& t, std::source_location at, SiteKind kind) {
  if (t.all.size() >= kSlots / 2) throw std::runtime_error("more call sites than the table holds");
  std::string file = at.file_name();
  if (file.starts_with(SDAR_SOURCE_ROOT)) file = file.substr(sizeof(SDAR_SOURCE_ROOT) - 1);
  while (file.starts_with("../")) file = file.substr(3);  // the compiler was called with a relative path
  Site site;
  site.place = file + ":" + std::to_string(at.line()) + ":" + std::to_string(at.column());
  site.kind = kind;
  site.change = t.change_of(site);
  site.index = static_cast<uint16_t>(t.all.size());
  return t.all.emplace_back(std::move(site));
}

/// "(gemm_kernel<format, 8>)" is gemm.
std::string short_name(const std::string& kernel) {
  const size_t end = kernel.find("_kernel"), begin = kernel.find_first_not_of('(');
  return kernel.substr(begin, end - begin);
}

}  // namespace

const char* name_of(SiteKind kind) {
  constexpr const char* kNames[] = {"access", "barrier", "warp_barrier", "wait",      "commit",
                                    "fence",  "bound",   "guard",        "full_mask", "part_mask"};
  return kNames[static_cast<int>(kind)];
}

Site& site_at(std::source_location at, SiteKind kind) {
  static_assert(sizeof(at) == sizeof(void*), "a source_location is a pointer to what the compiler keeps per call");
  static Table& t = table();
  const void* key = std::bit_cast<const void*>(at);
  // The kind is part of the key: one call may be an access and a bound.
  uint64_t hash = (reinterpret_cast<uint64_t>(key) + static_cast<uint64_t>(kind)) * 0x9E3779B97F4A7C15u >> 50;
  for (; t.key[hash]; hash = (hash + 1) % kSlots)
    if (t.key[hash] == key && t.site[hash]->kind == kind) break;
  if (!t.key[hash]) {
    t.site[hash] = &add(t, at, kind);
    t.key[hash] = key;
  }
  t.site[hash]->kernels |= uint64_t{1} << t.present;
  return *t.site[hash];
}

const Site& site_number(uint16_t index) { return table().all[index]; }
size_t site_count() { return table().all.size(); }

void enter_kernel(const std::string& kernel, uint64_t seed) {
  Table& t = table();
  const std::string name = short_name(kernel);
  const auto known = std::find_if(t.kernels.begin(), t.kernels.end(), [&](const Kernel& k) { return k.name == name; });
  t.present = static_cast<size_t>(known - t.kernels.begin());
  if (known == t.kernels.end()) {
    if (t.kernels.size() == kMostKernels) throw std::runtime_error("more kernels than the table holds");
    t.kernels.push_back({name, {}});
  }
  t.kernels[t.present].seeds.insert(seed);
  if (t.mutant.change != Change::none)
    for (Site& s : t.all) s.change = t.change_of(s);
}

}  // namespace sdar::cuda_host
