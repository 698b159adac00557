#include "model/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>
#include <string_view>

#include "util/error.h"
#include "util/json.h"

namespace sdar {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are used as they lie in the file");

constexpr uint64_t kMaxHeader = 32 << 20;  // of all files together; a model of 100 000 tensors stays below
constexpr size_t kMaxIndex = 32 << 20;
constexpr size_t kMaxShards = 2048;
constexpr size_t kMaxDimensions = 64;

[[noreturn]] void invalid(const std::string& where, const std::string& what) {
  throw Error(code::kCheckpointInvalid, where + ": " + what);
}

std::optional<DType> parse_dtype(const std::string& where, const Json* value) {
  if (!value || !value->string()) invalid(where, "dtype is missing or not a string; allowed: F32, F16, BF16");
  for (const DType t : {DType::f32, DType::f16, DType::bf16})
    if (*value->string() == name_of(t)) return t;
  return {};
}

/// The shape, and in `bytes` the size it means when an element has `element_bytes`.
std::vector<int64_t> parse_shape(const std::string& where, const Json* value, uint64_t element_bytes, uint64_t& bytes) {
  if (!value || !value->array()) invalid(where, "shape is missing or not an array");
  if (value->array()->size() > kMaxDimensions)
    invalid(where, "shape has " + std::to_string(value->array()->size()) + " dimensions; at most " +
                       std::to_string(kMaxDimensions) + " are allowed");
  std::vector<int64_t> shape;
  bytes = element_bytes;
  bool overflow = false, empty = false;
  for (const Json& item : *value->array()) {
    const int64_t* size = item.integer();
    if (!size || *size < 0) invalid(where, "shape has " + item.brief() + "; expected integers >= 0");
    shape.push_back(*size);
    empty |= *size == 0;
    overflow |= __builtin_mul_overflow(bytes, static_cast<uint64_t>(*size), &bytes);
  }
  if (empty)
    bytes = 0;
  else if (overflow)
    invalid(where, "shape means more than 2^64 bytes");
  return shape;
}

/// Offsets [begin, end) from the start of the data section.
std::pair<uint64_t, uint64_t> parse_offsets(const std::string& where, const Json* value) {
  const Json::Array* pair = value ? value->array() : nullptr;
  if (!pair || pair->size() != 2) invalid(where, "data_offsets is missing or not an array of two integers");
  const int64_t *begin = (*pair)[0].integer(), *end = (*pair)[1].integer();
  if (!begin || !end || *begin < 0 || *end < *begin)
    invalid(where, "data_offsets are [" + (*pair)[0].brief() + ", " + (*pair)[1].brief() +
                       "]; expected integers, 0 <= begin <= end");
  return {static_cast<uint64_t>(*begin), static_cast<uint64_t>(*end)};
}

std::string range_of(uint64_t begin, uint64_t end) {
  return "bytes " + std::to_string(begin) + " to " + std::to_string(end) + " of the data";
}

/// The header's JSON. Layout of the file: length N (8 bytes, little-endian), N bytes of JSON, data.
std::string_view header_text(const MappedFile& file) {
  const auto bytes = file.bytes();
  uint64_t length = 0;
  if (bytes.size() < sizeof length)
    throw Error(code::kCheckpointTruncated,
                file.path() + ": has " + std::to_string(bytes.size()) + " bytes; a safetensors file has at least 8");
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > kMaxHeader)
    invalid(file.path(), "header length is " + std::to_string(length) + "; at most " + std::to_string(kMaxHeader) +
                             " is allowed (is this a safetensors file?)");
  if (length > bytes.size() - sizeof length)
    throw Error(code::kCheckpointTruncated, file.path() + ": ends inside its header: the header has " +
                                                std::to_string(length) + " bytes, the file " +
                                                std::to_string(bytes.size()));
  return {reinterpret_cast<const char*>(bytes.data()) + sizeof length, static_cast<size_t>(length)};
}

/// The contents may have changed: a stamp tells, unless it is only that a link to the file was made or removed.
bool rewritten(const MappedFile& file) {
  const FileStamp now = file.stamp_now(), then = file.stamp();
  return now.modified != then.modified || (now.changed != then.changed && now.links == then.links);
}

/// Tensors by name, with everything the header says checked against the file.
std::map<std::string, StoredTensor> read_header(const MappedFile& file) {
  const std::string_view text = header_text(file);
  const Json header = parse_json(text, file.path() + ": header", code::kCheckpointInvalid);
  if (!header.object()) invalid(file.path(), "header is not a JSON object");
  const uint64_t data_begin = sizeof(uint64_t) + text.size(), data_bytes = file.bytes().size() - data_begin;

  std::map<std::string, StoredTensor> tensors;
  struct Range {
    uint64_t begin, end;
    const std::string* name;
  };
  std::vector<Range> ranges;
  for (const auto& [name, entry] : *header.object()) {
    if (name == "__metadata__") continue;
    const std::string where = file.path() + ": tensor " + shown(name);
    if (!entry.object()) invalid(where, "is described by " + entry.brief() + "; expected an object");
    StoredTensor tensor;
    tensor.file = &file;
    const Json* dtype = entry.find("dtype");
    tensor.dtype = parse_dtype(where, dtype);
    tensor.dtype_name = dtype->brief();
    uint64_t expected = 0;
    tensor.shape = parse_shape(where, entry.find("shape"), tensor.dtype ? bytes_of(*tensor.dtype) : 1, expected);
    const auto [begin, end] = parse_offsets(where, entry.find("data_offsets"));
    if (!tensor.dtype) expected = end - begin;  // of a type that no weight has; its size is nobody's concern
    if (end - begin != expected)
      invalid(where, "data_offsets span " + std::to_string(end - begin) + " bytes; shape and dtype mean " +
                         std::to_string(expected));
    if (end > data_bytes)
      throw Error(code::kCheckpointTruncated, where + " lies at " + range_of(begin, end) + ", which has only " +
                                                  std::to_string(data_bytes) +
                                                  ": the file is truncated or the offsets are out of range");
    tensor.offset = static_cast<size_t>(data_begin + begin);
    tensor.bytes = static_cast<size_t>(expected);
    ranges.push_back({begin, end, &name});
    tensors.emplace(name, std::move(tensor));
  }

  // The format allows neither overlaps nor holes.
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
  uint64_t at = 0;
  const std::string* previous = nullptr;
  for (const Range& range : ranges) {
    const std::string where = file.path() + ": tensor " + shown(*range.name);
    if (range.begin < at)
      invalid(where, "lies at " + range_of(range.begin, range.end) + " and overlaps tensor " + shown(*previous));
    if (range.begin > at) invalid(where, "leaves a hole before it, " + range_of(at, range.begin));
    at = range.end;
    previous = range.name;
  }
  if (at != data_bytes) invalid(file.path(), "no tensor covers " + range_of(at, data_bytes));
  return tensors;
}

}  // namespace

std::string shown(const std::string& name) {
  const std::string quoted = Json{name}.brief();
  return quoted.substr(1, quoted.size() - 2);
}

Safetensors::Safetensors(const std::string& folder, const std::function<void()>& check) {
  const std::string single = folder + "/model.safetensors", index = single + ".index.json";
  if (is_file(single) || is_folder(single)) {
    add_file(single);
  } else if (is_file(index) || is_folder(index)) {
    add_shards(folder, index, check);
  } else {
    throw Error(code::kFileNotFound, folder + ": has no model.safetensors and no model.safetensors.index.json");
  }
}

void Safetensors::add_file(const std::string& path) {
  files_.push_back(std::make_shared<MappedFile>(path));
  const MappedFile& file = *files_.back();
  std::map<std::string, StoredTensor> tensors;
  try {
    header_bytes_ += header_text(file).size();
    if (header_bytes_ > kMaxHeader)
      invalid(path, "the headers up to this file's have " + std::to_string(header_bytes_) + " bytes; at most " +
                        std::to_string(kMaxHeader) + " are allowed");
    tensors = read_header(file);
  } catch (const Error&) {
    check_whole();  // what looked wrong may have been what was missing
    throw;
  }
  for (auto& [name, tensor] : tensors) {
    const auto [there, added] = tensors_.emplace(name, std::move(tensor));
    if (!added) invalid(path, "tensor " + shown(name) + " is also in " + there->second.file->path());
  }
}

void Safetensors::add_shards(const std::string& folder, const std::string& index_path,
                             const std::function<void()>& check) {
  const Json index = parse_json(read_file(index_path, kMaxIndex), index_path, code::kCheckpointInvalid);
  const Json* map = index.find("weight_map");
  if (!map || !map->object()) invalid(index_path, "weight_map is missing or not an object");
  if (map->object()->empty()) invalid(index_path, "weight_map names no tensor");
  std::set<std::string> shards;
  for (const auto& [name, shard] : *map->object()) {
    if (!shard.string())
      invalid(index_path, "tensor " + shown(name) + " is in " + shard.brief() + "; expected a file name");
    const std::string& file = *shard.string();
    // A file beside the index, never a path to somewhere else.
    if (file.empty() || file == "." || file == ".." || file.find_first_of(std::string_view("/\\\0", 3)) != file.npos)
      invalid(index_path,
              "tensor " + shown(name) + " is in " + shard.brief() + "; expected the name of a file in the same folder");
    if (shards.insert(file).second && !is_file(folder + "/" + file))
      throw Error(code::kFileNotFound, index_path + ": names the shard " + shard.brief() + ", which is missing");
  }
  if (shards.size() > kMaxShards)
    invalid(index_path, "weight_map names " + std::to_string(shards.size()) + " shards; at most " +
                            std::to_string(kMaxShards) + " are allowed");
  for (const std::string& shard : shards) {
    if (check) check();
    add_file(folder + "/" + shard);
  }
  for (const auto& [name, shard] : *map->object()) {
    const auto tensor = tensors_.find(name);
    if (tensor == tensors_.end() || tensor->second.file->path() != folder + "/" + *shard.string())
      invalid(index_path, "tensor " + shown(name) + " is not in the shard " + shard.brief());
  }
}

void Safetensors::check_whole() const {
  for (const auto& file : files_) {
    if (file->truncated())
      throw Error(code::kCheckpointTruncated, file->path() + ": was truncated while it was in use");
    if (rewritten(*file)) invalid(file->path(), "was written to while it was in use");
  }
}

}  // namespace sdar
