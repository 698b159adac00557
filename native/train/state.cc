// The state of a trainer on disk, in the format of packed_entry.h: a text (what it is for, the step) and weights, first
// and second moments and, where it is kept, the average of the weights as f32.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>

#include "model/packed_entry.h"
#include "train/trainer.h"
#include "util/error.h"
#include "util/mapped_file.h"
#include "util/output_file.h"

namespace sdar::train {
namespace {

constexpr char kName[] = "/state", kStep[] = "\nstep ";

/// A new file that is removed again unless it was kept.
class PartialFile {
 public:
  explicit PartialFile(std::string path)
      : path_(std::move(path)), file_(open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    if (file_ < 0) unwritable(path_, std::strerror(errno));
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile() {
    if (file_ < 0) return;
    close(file_);
    unlink(path_.c_str());
  }

  void write(std::span<const std::byte> bytes, size_t offset) {
    errno = 0;
    if (!write_at(file_, bytes, offset, [] {})) unwritable(path_, std::strerror(errno ? errno : ENOSPC));
  }
  /// What was written is on the disk before the name is, so no power cut leaves a name without contents.
  void keep_as(const std::string& path) {
    if (fsync(file_) != 0 || rename(path_.c_str(), path.c_str()) != 0) unwritable(path, std::strerror(errno));
    close(file_);
    file_ = -1;
  }

 private:
  std::string path_;
  int file_;
};

}  // namespace

std::string Trainer::description() const {
  std::string text = "training state 2\n";
  text += settings_.text();
  text += " format ";
  text += kFormats[static_cast<size_t>(compute_.format())];
  text += " " + network_.text();
  for (const Parameter& p : network_.layout().parameters())
    text += "\n" + p.name + " " + std::to_string(p.rows) + " " + std::to_string(p.cols);
  return text;
}

void Trainer::save(const std::string& folder) const {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) unwritable(folder, failed.message());
  const std::string text = description() + kStep + std::to_string(step_);
  std::vector<std::span<const std::byte>> parts;
  size_t payload = 0;
  for (const std::vector<float>* part : {&weights_, &moments_.first, &moments_.second, &averaged_}) {
    parts.push_back(std::as_bytes(std::span(*part)));
    payload += parts.back().size();
  }
  PartialFile file(folder + kName + ".partial");
  // A chunk of the payload may lie in several parts, so it is put together before it is hashed and written.
  std::vector<std::byte> chunk(std::min(payload, kChunkBytes));
  std::vector<Hash> hashes;
  const size_t start = header_bytes(text.size(), payload);
  auto part = parts.begin();
  for (size_t at = 0; at < payload; at += kChunkBytes) {
    const size_t length = std::min(kChunkBytes, payload - at);
    for (size_t done = 0; done < length;) {
      const size_t count = std::min(length - done, part->size());
      std::copy_n(part->data(), count, chunk.data() + done);
      *part = part->subspan(count);
      if (part->empty()) ++part;
      done += count;
    }
    const std::span<const std::byte> bytes(chunk.data(), length);
    hashes.push_back(hash_chunk(bytes, 0, kDamageKey));
    file.write(bytes, start + at);
  }
  const std::string header = make_header(text, hashes, payload);
  file.write(std::as_bytes(std::span(header)), 0);
  file.keep_as(folder + kName);
  sync_folder(folder);
}

void Trainer::resume(const std::string& folder, const std::function<void()>& check) {
  const std::string path = folder + kName;
  const MappedFile file(path);
  size_t payload = 0;
  std::vector<float>* own[] = {&weights_, &moments_.first, &moments_.second, &averaged_};
  for (const std::vector<float>* part : own) payload += part->size() * sizeof(float);
  const std::optional<std::string_view> text = read_text(file, payload_bytes(file));
  if (!text || !payload_is_whole(file, payload_bytes(file), compute_.threads(), check))
    throw Error(code::kCheckpointInvalid, path + ": damaged; remove " + folder + " and begin again");
  const std::string expected = description();
  const size_t lines = expected.find('\n', expected.find('\n') + 1);  // the format and the settings
  if (text->substr(0, lines) != std::string_view(expected).substr(0, lines))
    throw Error(code::kInvalidOption, path + ": made with \"" + std::string(text->substr(0, text->find("\nmodel."))) +
                                          "\"; allowed: the settings of this run, \"" + expected.substr(0, lines) +
                                          "\"");
  if (!text->starts_with(expected + kStep) || payload_bytes(file) != payload)
    throw Error(code::kCheckpointInvalid, path + ": of another network: its tensors are not those of this model");
  const std::byte* from = file.bytes().data() + payload_offset(file);
  for (std::vector<float>* part : own) {
    const std::span<std::byte> to = std::as_writable_bytes(std::span(*part));
    std::copy_n(from, to.size(), to.data());
    from += to.size();
  }
  if (file.damaged()) throw Error(code::kCheckpointInvalid, path + ": was written to while it was read");
  step_ = std::stoll(std::string(text->substr(expected.size() + std::strlen(kStep))));
}

}  // namespace sdar::train
