#include "cuda_host/sites.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <set>
#include <stdexcept>

#ifndef SDAR_SOURCE_ROOT
#error "the build defines SDAR_SOURCE_ROOT: the project's folder with a slash at its end"
#endif

namespace sdar::cuda_host {
namespace {

constexpr uint32_t kSlots = 1 << 14;

struct Table {
  std::array<const void*, kSlots> key{};
  std::array<Site*, kSlots> site{};
  std::deque<Site> all;
  std::string dropped;  // ",place,place,"

  Table() {
    if (const char* wanted = std::getenv("SDAR_MUTANT")) dropped = "," + std::string(wanted) + ",";
  }
  ~Table() {
    const char* path = std::getenv("SDAR_SITES");
    std::FILE* file = path ? std::fopen(path, "w") : nullptr;
    if (!file) return;
    std::set<std::string> lines;
    for (const Site& s : all)
      if (s.kind != SiteKind::access && s.place.starts_with("native/"))
        lines.insert(std::string(name_of(s.kind)) + " " + s.place + "\n");
    for (const std::string& line : lines) std::fputs(line.c_str(), file);
    std::fclose(file);
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
  Site site;
  site.place = file + ":" + std::to_string(at.line()) + ":" + std::to_string(at.column());
  site.kind = kind;
  site.dropped = kind != SiteKind::access && t.dropped.find("," + site.place + ",") != std::string::npos;
  site.index = static_cast<uint16_t>(t.all.size());
  return t.all.emplace_back(std::move(site));
}

}  // namespace

const char* name_of(SiteKind kind) {
  constexpr const char* kNames[] = {"access", "barrier", "warp_barrier", "wait", "commit",
                                    "fence",  "bound",   "guard",        "mask"};
  return kNames[static_cast<int>(kind)];
}

Site& site_at(std::source_location at, SiteKind kind) {
  static_assert(sizeof(at) == sizeof(void*), "a source_location is a pointer to what the compiler keeps per call");
  static Table& t = table();
  const void* key = std::bit_cast<const void*>(at);
  // The kind is part of the key: one call may be an access and a bound.
  uint64_t hash = (reinterpret_cast<uint64_t>(key) + static_cast<uint64_t>(kind)) * 0x9E3779B97F4A7C15u >> 50;
  for (;; hash = (hash + 1) % kSlots) {
    if (t.key[hash] == key && t.site[hash]->kind == kind) return *t.site[hash];
    if (!t.key[hash]) break;
  }
  t.site[hash] = &add(t, at, kind);
  t.key[hash] = key;
  return *t.site[hash];
}

const Site& site_number(uint16_t index) { return table().all[index]; }
size_t site_count() { return table().all.size(); }

}  // namespace sdar::cuda_host
