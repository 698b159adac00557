// The folder of packed weights: names of entries, what killed processes left, limits. One process or many.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace sdar {

/// "<place>-<stamps>.sdarpack", 16 hexadecimal digits each; while it is written another ending follows. A process that
/// writes such a file holds a lock on it, which ends with the process.
std::string entry_name(const std::string& place, const std::string& stamps);
/// Full paths of the entries of a place.
std::vector<std::string> entries_of(const std::string& folder, const std::string& place);

/// Makes the folder, for this user alone, where there is none; true when only this user can write to it.
bool make_private_folder(const std::string& folder);

/// A new file beside `entry` and locked, with its path in `path`; −1 when that cannot be, or another process writes an
/// entry of that place.
int create_locked(const std::string& folder, const std::string& place, const std::string& stamps, std::string& path);

/// Whether a process, this one too, writes an entry of that place.
bool entry_is_being_written(const std::string& folder, const std::string& place);

/// Notes that the entry was used now.
void touch_entry(const std::string& path);

/// Removes files that no process is writing any more, entries unused for `unused_seconds`, and the longest unused of
/// those beyond `limit` bytes; never `keep`.
void tidy_folder(const std::string& folder, uint64_t limit, int64_t unused_seconds, const std::string& keep);

}  // namespace sdar
