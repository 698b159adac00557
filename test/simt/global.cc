#include "simt/global.h"

#include <cstring>
#include <unordered_map>

#include "simt/arena.h"
#include "simt/executor.h"
#include "simt/report.h"
#include "simt/shadow.h"

namespace sdar::cuda_host {
namespace {

// What was released at the word of an atomic, in this launch.
std::unordered_map<uint64_t, std::vector<Release>> released;
uint64_t released_launch = 0;

std::string describe(const char* what, const void* p, uint32_t bytes) {
  return std::string(what) + " of " + std::to_string(bytes) + " bytes at " + arena().describe(p);
}

uint64_t check(const Site& site, const char* what, const void* p, uint32_t bytes) {
  Arena& a = arena();
  const uint64_t at = a.offset(p);
  if (at >= kArenaBytes) fault("OUT_OF_BOUNDS", site, describe(what, p, bytes));
  if (at % bytes) fault("MISALIGNED", site, describe(what, p, bytes));
  if (!access_set(a.live, at, bytes)) {
    const Allocation* of = a.find(p);
    const bool freed = of && of->freed && at < of->begin + of->bytes;
    fault(freed ? "FREED_MEMORY" : "OUT_OF_BOUNDS", site, describe(what, p, bytes));
  }
  return at;
}

bool released_to(const std::vector<Release>& list, Stamp s) {
  for (const Release& r : list)
    if (r.run == s.run() && (s.clock() < r.clock || (s.thread() == r.thread && s.readers() == kOneThread))) return true;
  return false;
}

/// Whether the access behind a stamp of this launch precedes what `me` does now.
bool ordered(Stamp s) {
  if (s.run() == block.run && s.readers() != kManyBlocks) return precedes(s.bits);
  if (s.readers() == kManyBlocks && block.visible.size() + me->visible.size() < block.runs_done) return false;
  return s.run() == block.run || released_to(block.visible, s) || released_to(me->visible, s);
}

[[noreturn]] void tell_race(const Site& site, const std::string& what, Stamp other, const char* did,
                            uint16_t other_site) {
  std::string who = other.readers() == kOneThread ? "thread " : "several threads, thread ";
  who += std::to_string(other.thread());
  if (other.run() != block.run) who += " of another block";
  fault("RACE", site,
        what + ": " + who + " " + did + " at " + site_number(other_site).place +
            (other.run() != block.run ? ", no arrival between" : ", no barrier between"));
}

template <class F>
void each_word(uint64_t at, uint32_t bytes, F body) {
  Shadow* words = arena().shadow + at / 4;
  if (bytes < 4) return body(*words, ((1u << bytes) - 1) << (at % 4));
  for (uint32_t i = 0; i < bytes / 4; i++) body(words[i], 15u);
}

void stamp_write(const Site& site, const char* what, const void* p, uint64_t at, uint32_t bytes, bool atomic) {
  if (block.launch->shape.pdl && !me->pdl_waited)
    fault("TOO_EARLY", site, describe(what, p, bytes) + " before pdl_wait");
  const Stamp mine = Stamp::make(block.run, me->clock, static_cast<uint32_t>(me->index));
  each_word(at, bytes, [&](Shadow& s, uint32_t part) {
    if (s.write.run() >= block.first_run && (s.write.bytes() & part) && !(atomic && s.write.atomic()) &&
        !ordered(s.write))
      tell_race(site, describe(what, p, bytes), s.write, "wrote it", s.write_site);
    if (s.read.run() >= block.first_run && (s.read.bytes() & part) && !ordered(s.read))
      tell_race(site, describe(what, p, bytes), s.read, "read it", s.read_site);
    s.write = mine.with(part, kOneThread, atomic);
    s.write_site = site.index;
  });
}

}  // namespace

void read_global(const Site& site, const void* p, uint32_t bytes, void* to, Coherence coherence) {
  const uint64_t at = check(site, "load", p, bytes);
  Arena& a = arena();
  if (!access_set(a.written, at, bytes)) fault("UNWRITTEN", site, describe("load", p, bytes) + ", which nobody wrote");
  const Stamp mine = Stamp::make(block.run, me->clock, static_cast<uint32_t>(me->index));
  const bool too_early = block.launch->shape.pdl && !me->pdl_waited;
  int64_t first_time = 0;
  each_word(at, bytes, [&](Shadow& s, uint32_t part) {
    if (block.launch->shape.pdl && coherence == Coherence::none && s.write.run() > 0)
      fault(
          "NOT_COHERENT", site,
          describe("load", p, bytes) + ", which a launch wrote, by one that may begin before its end: use load_global");
    if (too_early && s.write.run() > 0)
      fault("TOO_EARLY", site, describe("load", p, bytes) + ", which a launch wrote, before pdl_wait");
    if (s.write.run() >= block.first_run && (s.write.bytes() & part)) {
      if (!ordered(s.write)) tell_race(site, describe("load", p, bytes), s.write, "wrote it", s.write_site);
      if (coherence == Coherence::none)
        fault("NOT_COHERENT", site,
              describe("load", p, bytes) + ": this launch wrote it at " + site_number(s.write_site).place +
                  ", use load_global");
    }
    Stamp next = mine.with(part);
    if (s.read.run() < block.first_run) {
      first_time += bytes < 4 ? bytes : 4;
    } else if (!ordered(s.read)) {
      Readers readers = kManyBlocks;
      if (s.read.run() == block.run && s.read.readers() != kManyBlocks)
        readers = s.read.readers() <= kOneWarp && s.read.thread() / 32 == mine.thread() / 32 ? kOneWarp : kOneBlock;
      next = mine.with(part | s.read.bytes(), readers);
    }
    s.read = next;
    s.read_site = site.index;
  });
  std::memcpy(to, a.host + at, bytes);
  Traffic& t = traffic_of(a.owner[at / kGranule] - 1);
  t.loaded += bytes;
  t.loaded_once += first_time;
  if (bytes < 16) t.narrow += bytes;
  if (t.narrowest_load == 0 || static_cast<int>(bytes) < t.narrowest_load) t.narrowest_load = static_cast<int>(bytes);
  me->warp->log.add(site.index, false, me->lane, at, bytes);
}

void write_global(const Site& site, void* p, uint32_t bytes, const void* from) {
  const uint64_t at = check(site, "store", p, bytes);
  Arena& a = arena();
  stamp_write(site, "store", p, at, bytes, false);
  set_access(a.written, at, bytes);
  std::memcpy(a.host + at, from, bytes);
  traffic_of(a.owner[at / kGranule] - 1).stored += bytes;
  me->fenced = false;
  me->warp->log.add(site.index, false, me->lane, at, bytes);
}

uint32_t add_global(const Site& site, void* p, uint32_t n) {
  const uint64_t at = check(site, "atomic_add", p, 4);
  Arena& a = arena();
  if (!access_set(a.written, at, 4)) fault("UNWRITTEN", site, describe("atomic_add", p, 4) + ", which nobody wrote");
  stamp_write(site, "atomic_add", p, at, 4, true);
  if (released_launch != block.first_run) {
    released_launch = block.first_run;
    released.clear();
  }
  auto& list = released[at];
  me->taken.insert(me->taken.end(), list.begin(), list.end());
  if (me->fenced) list.push_back({block.run, me->fence_clock, static_cast<uint32_t>(me->index)});
  uint32_t old;
  std::memcpy(&old, a.host + at, 4);
  const uint32_t sum = old + n;
  std::memcpy(a.host + at, &sum, 4);
  traffic_of(a.owner[at / kGranule] - 1).stored += 4;
  return old;
}

void fence_global(const Site&) {
  Thread& t = *me;
  t.fenced = true;
  t.fence_clock = block.barrier;
  t.visible.insert(t.visible.end(), t.taken.begin(), t.taken.end());
  t.taken.clear();
}

}  // namespace sdar::cuda_host
