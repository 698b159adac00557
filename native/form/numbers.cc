#include "form/numbers.h"

#include <algorithm>
#include <numeric>

#include "util/error.h"

namespace sdar::form {
namespace {

constexpr int kMostWhole = 21;     // JSON.stringify writes larger numbers with an exponent
constexpr int kMostFraction = 24;  // 17 digits after 0.000000
constexpr int64_t kMostModulus = 3000;

/// A bound of the magnitude, as digits.
struct Bound {
  std::string whole, fraction;
  bool open = false;
};
/// What the magnitude of a number of one sign may be.
struct Magnitudes {
  bool none = false;
  std::optional<Bound> low, high;
};

Magnitudes magnitudes(const NumberRange& r, bool negative) {
  Magnitudes m;
  const auto bound = [](const Decimal& d, bool open) {
    auto [whole, fraction] = parts_of(d);
    return Bound{whole, fraction, open};
  };
  const auto& near = negative ? r.high : r.low;  // bounds the magnitude from below
  const auto& far = negative ? r.low : r.high;
  const bool near_open = negative ? r.high_open : r.low_open, far_open = negative ? r.low_open : r.high_open;
  if (near && (near->negative == negative || near->zero())) m.low = bound(*near, near_open);
  if (far) {
    if (far->negative != negative && !far->zero()) m.none = true;
    m.high = bound(*far, far_open);
  }
  return m;
}

enum Phase : uint8_t { kSign, kBegin, kZero, kWhole, kPoint, kFraction, kE, kESign, kE1, kE2, kE3 };

struct Key {
  Phase phase = kSign;
  bool negative = false;
  bool exponent_minus = false;
  int8_t low = 0, high = 0;  // the digits so far compared with the bounds'
  uint8_t digits = 0;        // of the phase
  uint8_t exponent = 0;      // its digits so far; 255 for more than two
  bool one = false;          // the number so far is 1
  bool single = false;       // one digit that is not 0 stands before the point
  int32_t remainder = 0;
  auto operator<=>(const Key&) const = default;
};

class Machine {
 public:
  Machine(const NumberRange& range, const std::string& at)
      : range_(range), sides_{magnitudes(range, false), magnitudes(range, true)} {
    if (range.multiples.empty()) return;
    for (const Decimal& m : range.multiples) scale_ = std::max(scale_, m.scale);
    modulus_ = range.integer ? power(scale_, at) : 1;
    for (const Decimal& m : range.multiples) {
      if (m.digits.size() > 10) refuse(at);
      const int64_t most = kMostModulus * power(scale_, at), step = std::stoll(m.digits) * power(scale_ - m.scale, at);
      const int64_t times = step / std::gcd(modulus_, step);
      if (times > most / modulus_) refuse(at);
      modulus_ *= times;
    }
    if (range.integer) modulus_ = std::max<int64_t>(1, modulus_ / power(scale_, at)), scale_ = 0;
    if (modulus_ > kMostModulus) refuse(at);
  }

  bool accepts(const Key& k) const {
    if (k.phase == kE1 || k.phase == kE2 || k.phase == kE3) return true;
    if (k.phase != kZero && k.phase != kWhole && k.phase != kFraction) return false;
    const Magnitudes& side = sides_[k.negative];
    const auto against = [&](const std::optional<Bound>& bound, int compared) {
      if (k.phase != kFraction) compared = whole_compared(*bound, compared, k.digits);
      // The bound's further digits are not all 0.
      const size_t seen = k.phase == kFraction ? k.digits : 0;
      return compared == 0 && seen < bound->fraction.size() ? -1 : compared;
    };
    if (side.low) {
      const int c = against(side.low, k.low);
      if (c < 0 || (c == 0 && side.low->open)) return false;
    }
    if (side.high) {
      const int c = against(side.high, k.high);
      if (c > 0 || (c == 0 && side.high->open)) return false;
    }
    if (range_.multiples.empty()) return true;
    int64_t rest = k.remainder;
    for (int64_t i = k.phase == kFraction ? k.digits : 0; i < scale_; i++) rest = rest * 10 % modulus_;
    return rest == 0;
  }

  template <class Add>
  void edges(const Key& k, Add add) const {
    Key next = k;
    switch (k.phase) {
      case kSign:
        next.phase = kBegin;
        next.negative = true;
        if (!sides_[1].none) add('-', '-', next);
        if (sides_[0].none) return;
        [[fallthrough]];
      case kBegin:
        // No integer is written -0.
        for (int d = range_.integer && k.negative ? 1 : 0; d <= 9; d++) add('0' + d, '0' + d, whole(k, d));
        return;
      case kZero:
      case kWhole:
        if (!range_.integer) add('.', '.', point(k));
        if (k.phase == kWhole && k.digits < kMostWhole)
          for (int d = 0; d <= 9; d++) add('0' + d, '0' + d, whole(k, d));
        return begin_exponent(k, add);
      case kPoint:
      case kFraction:
        if (k.digits < most_fraction())
          for (int d = 0; d <= 9; d++) add('0' + d, '0' + d, fraction(k, d));
        if (k.phase == kFraction) begin_exponent(k, add);
        return;
      case kE:
        next.phase = kESign;
        add('+', '+', next);
        next.exponent_minus = true;
        add('-', '-', next);
        [[fallthrough]];
      case kESign:
      case kE1:
      case kE2:
        for (int d = 0; d <= 9; d++)
          if (exponent_digit(k, d, next)) add('0' + d, '0' + d, next);
        return;
      case kE3:
        return;
    }
  }

 private:
  [[noreturn]] static void refuse(const std::string& at) {
    throw Error(code::kInvalidOption, at + "/multipleOf: the common multiple needs more than " +
                                          std::to_string(kMostModulus) + " remainders, which is not supported");
  }
  static int64_t power(int64_t exponent, const std::string& at) {
    if (exponent > 8) refuse(at);
    int64_t p = 1;
    for (int64_t i = 0; i < exponent; i++) p *= 10;
    return p;
  }
  int most_fraction() const {
    return range_.multiples.empty() ? kMostFraction : static_cast<int>(std::min<int64_t>(scale_, kMostFraction));
  }

  static int sign(int d) { return d < 0 ? -1 : d > 0; }
  /// A whole part of this many digits, of which the first ones compare so with the bound's.
  static int whole_compared(const Bound& bound, int compared, int digits) {
    const int length = static_cast<int>(bound.whole.size());
    return digits != length ? sign(digits - length) : compared;
  }
  Key whole(const Key& k, int d) const {
    Key next = k;
    next.phase = k.phase != kWhole && d == 0 ? kZero : kWhole;
    next.digits = k.phase == kWhole ? static_cast<uint8_t>(k.digits + 1) : 1;
    next.one = k.phase != kWhole && d == 1;
    next.single = k.phase != kWhole && d != 0;
    next.low = compared(sides_[k.negative].low, k.low, next.digits, d);
    next.high = compared(sides_[k.negative].high, k.high, next.digits, d);
    if (modulus_ > 0) next.remainder = static_cast<int32_t>((k.remainder * 10 + d) % modulus_);
    return next;
  }
  static int8_t compared(const std::optional<Bound>& bound, int8_t so_far, int digits, int d) {
    if (!bound || so_far != 0 || static_cast<size_t>(digits) > bound->whole.size()) return so_far;
    return static_cast<int8_t>(sign('0' + d - bound->whole[static_cast<size_t>(digits) - 1]));
  }
  Key point(const Key& k) const {
    Key next = k;
    next.phase = kPoint;
    if (sides_[k.negative].low)
      next.low = static_cast<int8_t>(whole_compared(*sides_[k.negative].low, k.low, k.digits));
    if (sides_[k.negative].high)
      next.high = static_cast<int8_t>(whole_compared(*sides_[k.negative].high, k.high, k.digits));
    next.digits = 0;
    return next;
  }
  Key fraction(const Key& k, int d) const {
    Key next = k;
    next.phase = kFraction;
    next.digits = static_cast<uint8_t>(k.digits + 1);
    next.one = false;
    const auto against = [&](const std::optional<Bound>& bound, int8_t so_far) {
      if (!bound || so_far != 0) return so_far;
      return static_cast<int8_t>(sign('0' + d - (k.digits < bound->fraction.size() ? bound->fraction[k.digits] : '0')));
    };
    next.low = against(sides_[k.negative].low, k.low);
    next.high = against(sides_[k.negative].high, k.high);
    if (modulus_ > 0) next.remainder = static_cast<int32_t>((k.remainder * 10 + d) % modulus_);
    return next;
  }

  template <class Add>
  void begin_exponent(const Key& k, Add add) const {
    if (range_.integer || !range_.free()) return;
    Key next{.phase = kE, .negative = k.negative, .one = k.one, .single = k.single};
    add('E', 'E', next);
    add('e', 'e', next);
  }
  /// Exponents of at most two digits; of three within a double's range, after a single digit.
  bool exponent_digit(const Key& k, int d, Key& next) const {
    next = k;
    next.phase = k.phase == kE || k.phase == kESign ? kE1 : k.phase == kE1 ? kE2 : kE3;
    next.exponent = static_cast<uint8_t>(std::min(255, k.phase == kE || k.phase == kESign ? d : k.exponent * 10 + d));
    if (k.phase != kE2) return true;
    const int exponent = k.exponent * 10 + d;
    const int most = k.exponent_minus ? 324 : k.one ? 308 : 307;
    return k.single && exponent >= 100 && exponent <= most;
  }
  const NumberRange& range_;
  Magnitudes sides_[2];
  int64_t modulus_ = 0, scale_ = 0;
};

}  // namespace

int compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  auto [whole, fraction] = parts_of(a);
  auto [other_whole, other_fraction] = parts_of(b);
  int c =
      whole.size() != other_whole.size() ? (whole.size() < other_whole.size() ? -1 : 1) : whole.compare(other_whole);
  if (c == 0) c = fraction.compare(other_fraction);
  return a.negative ? -c : c;
}

void NumberRange::at_least(const Decimal& bound, bool open) {
  const int c = low ? compare(bound, *low) : 1;
  if (c > 0) low = bound, low_open = open;
  if (c == 0) low_open |= open;
}

void NumberRange::at_most(const Decimal& bound, bool open) {
  const int c = high ? compare(bound, *high) : -1;
  if (c < 0) high = bound, high_open = open;
  if (c == 0) high_open |= open;
}

CharDfa numbers(const NumberRange& range, const std::string& at) {
  const Machine machine(range, at);
  return CharDfa::explore(
      Key{}, [&](const Key& k) { return machine.accepts(k); },
      [&](const Key& k, const auto& add) {
        machine.edges(k, [&](int low, int high, const Key& next) {
          add(static_cast<char32_t>(low), static_cast<char32_t>(high), next);
        });
      },
      at);
}

}  // namespace sdar::form
