// The one exception type that crosses layers. `code` is stable and part of the public API; lib/errors.ts lists all.
#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace sdar {

class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message) : std::runtime_error(message), code_(std::move(code)) {}
  const std::string& code() const { return code_; }

 private:
  std::string code_;
};

namespace code {
inline constexpr char kFileNotFound[] = "FILE_NOT_FOUND";
inline constexpr char kFileUnreadable[] = "FILE_UNREADABLE";
inline constexpr char kFileUnwritable[] = "FILE_UNWRITABLE";
inline constexpr char kCheckpointInvalid[] = "CHECKPOINT_INVALID";      // a file says something impossible
inline constexpr char kCheckpointTruncated[] = "CHECKPOINT_TRUNCATED";  // a file ends too soon, also while in use
inline constexpr char kConfigInvalid[] = "CONFIG_INVALID";
inline constexpr char kUnsupportedModel[] = "UNSUPPORTED_MODEL";
inline constexpr char kUnsupportedDevice[] = "UNSUPPORTED_DEVICE";
inline constexpr char kInvalidOption[] = "INVALID_OPTION";
inline constexpr char kEmptyPrompt[] = "EMPTY_PROMPT";
inline constexpr char kTokenOutOfRange[] = "TOKEN_OUT_OF_RANGE";
inline constexpr char kPromptTooLong[] = "PROMPT_TOO_LONG";
inline constexpr char kCacheTooSmall[] = "CACHE_TOO_SMALL";
inline constexpr char kNumericError[] = "NUMERIC_ERROR";
inline constexpr char kOutOfMemory[] = "OUT_OF_MEMORY";
inline constexpr char kDeviceFailed[] = "DEVICE_FAILED";  // a GPU's error, which sticks
inline constexpr char kAborted[] = "ABORTED";
inline constexpr char kDeadlineExceeded[] = "DEADLINE_EXCEEDED";
inline constexpr char kDisposed[] = "DISPOSED";
inline constexpr char kInternal[] = "INTERNAL";
}  // namespace code

}  // namespace sdar
