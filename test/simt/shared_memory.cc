#include "simt/shared_memory.h"

#include <array>
#include <cstring>
#include <memory>

#include "simt/executor.h"
#include "simt/global.h"
#include "simt/report.h"
#include "simt/shadow.h"

namespace sdar::cuda_host {
namespace {

constexpr uint32_t kMost = 256 * 1024;

struct Memory {
  alignas(128) std::array<std::byte, kMost> bytes;
  std::array<Shadow, kMost / 4> shadow;
  std::array<uint8_t, kMost / 8> written;
  struct Writer {
    uint16_t thread;
    uint32_t fences;  ///< of the thread for MMA, when it wrote
  };
  std::array<Writer, kMost / 16> writer;
  std::array<uint16_t, kMost / 16> in_flight;  // of 16 bytes: 1 + the thread whose cp_async has not been waited for
};
Memory& memory() {
  static const auto m = std::make_unique<Memory>();
  return *m;
}

std::string at(int64_t offset, uint32_t bytes) {
  return std::to_string(bytes) + " bytes at shared " + std::to_string(offset);
}

[[noreturn]] void tell_race(const Site& site, const char* what, int64_t offset, uint32_t bytes, Stamp other,
                            const char* did, uint16_t other_site) {
  const std::string who = other.readers() == kOneThread ? "thread " + std::to_string(other.thread())
                                                        : "several threads, thread " + std::to_string(other.thread());
  fault("RACE", site,
        std::string(what) + " of " + at(offset, bytes) + ": " + who + " " + did + " at " +
            site_number(other_site).place + ", no barrier between");
}

void check(const Site& site, const char* what, int64_t offset, uint32_t bytes) {
  if (offset < 0 || offset + bytes > block.launch->shape.shared_bytes)
    fault("OUT_OF_BOUNDS", site,
          std::string(what) + " of " + at(offset, bytes) + " of " + std::to_string(block.launch->shape.shared_bytes));
  if (offset % bytes) fault("MISALIGNED", site, std::string(what) + " of " + at(offset, bytes));
  if (const uint16_t copier = memory().in_flight[static_cast<size_t>(offset) / 16])
    fault("NOT_WAITED", site,
          std::string(what) + " of " + at(offset, bytes) + ": a cp_async of thread " + std::to_string(copier - 1) +
              " is in flight there");
}

template <class F>
void each_word(uint64_t offset, uint32_t bytes, F body) {
  if (bytes < 4) return body(memory().shadow[offset / 4], ((1u << bytes) - 1) << (offset % 4));
  for (uint32_t i = 0; i < bytes / 4; i++) body(memory().shadow[offset / 4 + i], 15u);
}

void stamp_write(const Site& site, const char* what, uint64_t offset, uint32_t bytes, bool atomic = false) {
  const Stamp mine = Stamp::make(block.run, me->clock, static_cast<uint32_t>(me->index));
  each_word(offset, bytes, [&](Shadow& s, uint32_t part) {
    if (s.write.run() == block.run && (s.write.bytes() & part) && !(atomic && s.write.atomic()) &&
        !precedes(s.write.bits))
      tell_race(site, what, static_cast<int64_t>(offset), bytes, s.write, "wrote it", s.write_site);
    if (s.read.run() == block.run && (s.read.bytes() & part) && !precedes(s.read.bits))
      tell_race(site, what, static_cast<int64_t>(offset), bytes, s.read, "read it", s.read_site);
    s.write = mine.with(part, kOneThread, atomic);
    s.write_site = site.index;
  });
  memory().writer[offset / 16] = {static_cast<uint16_t>(me->index), static_cast<uint32_t>(me->mma_fences.size())};
}

}  // namespace

void clear_shared() {
  Memory& m = memory();
  const size_t bytes = static_cast<size_t>(block.launch->shape.shared_bytes + 15) / 16 * 16;
  std::memset(m.bytes.data(), 0xff, bytes);
  std::memset(m.written.data(), 0, bytes / 8);
  std::memset(m.in_flight.data(), 0, bytes / 16 * sizeof(uint16_t));
}

namespace {

/// A load but for what it costs.
void stamp_read(const Site& site, int64_t offset, uint32_t bytes, void* to) {
  check(site, "load", offset, bytes);
  Memory& m = memory();
  const auto from = static_cast<uint64_t>(offset);
  if (!access_set(m.written.data(), from, bytes))
    fault("UNWRITTEN", site, "load of " + at(offset, bytes) + ", which nobody wrote");
  const Stamp mine = Stamp::make(block.run, me->clock, static_cast<uint32_t>(me->index));
  each_word(from, bytes, [&](Shadow& s, uint32_t part) {
    if (s.write.run() == block.run && (s.write.bytes() & part) && !precedes(s.write.bits))
      tell_race(site, "load", offset, bytes, s.write, "wrote it", s.write_site);
    Stamp next = mine.with(part);
    if (s.read.run() == block.run && !precedes(s.read.bits)) {
      const bool same_warp = s.read.readers() <= kOneWarp && s.read.thread() / 32 == mine.thread() / 32;
      next = mine.with(part | s.read.bytes(), same_warp ? kOneWarp : kOneBlock);
    }
    s.read = next;
    s.read_site = site.index;
  });
  std::memcpy(to, m.bytes.data() + from, bytes);
}

}  // namespace

void read_shared(const Site& site, int64_t offset, uint32_t bytes, void* to) {
  stamp_read(site, offset, bytes, to);
  me->registers_fenced = false;  // what is loaded may be an operand of an MMA
  counters().shared_loaded += bytes;
  me->warp->log.add(site.index, true, me->lane, static_cast<uint64_t>(offset), bytes);
}

void check_for_mma(const Site& site, int64_t offset) {
  char ignored[16];
  read_for_mma(site, offset, ignored);
}

void read_for_mma(const Site& site, int64_t offset, void* to) {
  stamp_read(site, offset, 16, to);
  const auto& writer = memory().writer[static_cast<size_t>(offset) / 16];
  const Thread& by = block.all[writer.thread];
  const auto& fences = by.mma_fences;  // the first one after it wrote
  if (fences.size() <= writer.fences || (&by != me && fences[writer.fences] >= block.barrier))
    fault("NOT_FENCED", site,
          "an MMA of " + at(offset, 16) + ", which thread " + std::to_string(writer.thread) +
              " wrote without a fence_for_warpgroup_mma between that and a barrier");
}

void fence_for_mma() { me->mma_fences.push_back(me->clock); }

void write_shared(const Site& site, int64_t offset, uint32_t bytes, const void* from) {
  check(site, "store", offset, bytes);
  Memory& m = memory();
  const auto to = static_cast<uint64_t>(offset);
  stamp_write(site, "store", to, bytes);
  set_access(m.written.data(), to, bytes);
  std::memcpy(m.bytes.data() + to, from, bytes);
  counters().shared_stored += bytes;
  me->warp->log.add(site.index, true, me->lane, to, bytes);
}

uint32_t add_shared(const Site& site, int64_t offset, uint32_t n) {
  check(site, "atomic_add", offset, 4);
  Memory& m = memory();
  const auto to = static_cast<uint64_t>(offset);
  if (!access_set(m.written.data(), to, 4))
    fault("UNWRITTEN", site, "atomic_add of " + at(offset, 4) + ", which nobody wrote");
  stamp_write(site, "atomic_add", to, 4, true);
  uint32_t old;
  std::memcpy(&old, m.bytes.data() + to, 4);
  const uint32_t sum = old + n;
  std::memcpy(m.bytes.data() + to, &sum, 4);
  counters().shared_stored += 4;
  me->warp->log.add(site.index, true, me->lane, to, 4);
  return old;
}

void copy_async(const Site& site, int64_t offset, const void* from) {
  check(site, "cp_async", offset, 16);
  Memory& m = memory();
  const auto to = static_cast<uint64_t>(offset);
  PendingCopy copy{&site, static_cast<uint32_t>(to), {}};
  if (from) {
    read_global(site, from, 16, copy.words, Coherence::full);
    counters().async_copied += 16;
  }
  stamp_write(site, "cp_async", to, 16);
  std::memset(m.bytes.data() + to, 0xff, 16);
  m.in_flight[to / 16] = static_cast<uint16_t>(me->index + 1);
  counters().shared_stored += 16;
  me->warp->log.add(site.index, true, me->lane, to, 16);
  me->copies.push_back(copy);
}

void commit_copies(const Site&) { me->groups.push_back(static_cast<uint32_t>(me->copies.size())); }

void wait_for_copies(const Site& site, int pending) {
  Thread& t = *me;
  if (static_cast<int>(t.groups.size()) <= pending) return;
  const size_t groups = t.groups.size() - static_cast<size_t>(pending);
  const uint32_t done = t.groups[groups - 1];
  Memory& m = memory();
  for (uint32_t i = 0; i < done; i++) {
    const PendingCopy& copy = t.copies[i];
    std::memcpy(m.bytes.data() + copy.offset, copy.words, 16);
    set_access(m.written.data(), copy.offset, 16);
    m.in_flight[copy.offset / 16] = 0;
    stamp_write(site, "cp_async_wait", copy.offset, 16);
  }
  t.copies.erase(t.copies.begin(), t.copies.begin() + done);
  t.groups.erase(t.groups.begin(), t.groups.begin() + static_cast<std::ptrdiff_t>(groups));
  for (uint32_t& end : t.groups) end -= done;
}

}  // namespace sdar::cuda_host
