#include "form/formats.h"

#include <iterator>

namespace sdar::form {
namespace {

// RFC 3339: dates of the Gregorian calendar, leap years included; 23:59:60 in UTC only.
#define SDAR_DATE                                                                                                          \
  R"((?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8])))" \
  R"(|(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29))"
#define SDAR_TIME                                                                                \
  R"((?:(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,18})?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d))" \
  R"(|23:59:60(?:\.\d{1,18})?[Zz]))"
#define SDAR_LABEL R"([A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)"
#define SDAR_HOST SDAR_LABEL R"((?:\.)" SDAR_LABEL R"()*)"
#define SDAR_OCTET R"((?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))"
#define SDAR_IPV4 SDAR_OCTET R"((?:\.)" SDAR_OCTET R"(){3})"
#define SDAR_H R"([0-9A-Fa-f]{1,4})"
#define SDAR_H_OR_IPV4 R"((?:)" SDAR_H ":" SDAR_H "|" SDAR_IPV4 R"())"
// RFC 3986, section 3.2.2, as its grammar has it.
#define SDAR_IPV6                                                                                                     \
  R"((?:(?:)" SDAR_H R"(:){6})" SDAR_H_OR_IPV4 R"(|::(?:)" SDAR_H R"(:){5})" SDAR_H_OR_IPV4 R"(|(?:)" SDAR_H          \
  R"()?::(?:)" SDAR_H R"(:){4})" SDAR_H_OR_IPV4 R"(|(?:(?:)" SDAR_H R"(:){0,1})" SDAR_H R"()?::(?:)" SDAR_H           \
  R"(:){3})" SDAR_H_OR_IPV4 R"(|(?:(?:)" SDAR_H R"(:){0,2})" SDAR_H R"()?::(?:)" SDAR_H R"(:){2})" SDAR_H_OR_IPV4     \
  R"(|(?:(?:)" SDAR_H R"(:){0,3})" SDAR_H R"()?::)" SDAR_H ":" SDAR_H_OR_IPV4 R"(|(?:(?:)" SDAR_H R"(:){0,4})" SDAR_H \
  R"()?::)" SDAR_H_OR_IPV4 R"(|(?:(?:)" SDAR_H R"(:){0,5})" SDAR_H R"()?::)" SDAR_H R"(|(?:(?:)" SDAR_H               \
  R"(:){0,6})" SDAR_H R"()?::))"
#define SDAR_PCHAR R"((?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2}))"
#define SDAR_QUERY R"((?:\?(?:)" SDAR_PCHAR R"(|[/?])*)?(?:#(?:)" SDAR_PCHAR R"(|[/?])*)?)"
#define SDAR_AUTHORITY                                                       \
  R"((?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*@)?(?:\[)" SDAR_IPV6 \
  R"(\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::\d{0,5})?)"
#define SDAR_PATH R"((?:/)" SDAR_PCHAR R"(*)*)"
#define SDAR_AFTER_SCHEME \
  R"((?://)" SDAR_AUTHORITY SDAR_PATH R"(|/(?:)" SDAR_PCHAR "+" SDAR_PATH R"()?|)" SDAR_PCHAR "+" SDAR_PATH R"(|))"
#define SDAR_URI R"([A-Za-z][A-Za-z0-9+.-]*:)" SDAR_AFTER_SCHEME SDAR_QUERY

constexpr struct {
  std::string_view name;
  const char* pattern;
} kFormats[] = {
    {"date", SDAR_DATE},
    {"time", SDAR_TIME},
    {"date-time", SDAR_DATE "[Tt]" SDAR_TIME},
    {"duration", R"(P(?:\d{1,9}W|(?:\d{1,9}Y(?:\d{1,9}M(?:\d{1,9}D)?)?|\d{1,9}M(?:\d{1,9}D)?|\d{1,9}D))"
                 R"((?:T(?:\d{1,9}H(?:\d{1,9}M(?:\d{1,9}S)?)?|\d{1,9}M(?:\d{1,9}S)?|\d{1,9}S))?)"
                 R"(|T(?:\d{1,9}H(?:\d{1,9}M(?:\d{1,9}S)?)?|\d{1,9}M(?:\d{1,9}S)?|\d{1,9}S)))"},
    {"uuid", R"([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})"},
    // A domain with a dot: what zod and ajv take for an address as well.
    {"email", R"([A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@)" SDAR_LABEL
              R"((?:\.)" SDAR_LABEL R"()+)"},
    {"hostname", SDAR_HOST},
    {"ipv4", SDAR_IPV4},
    {"ipv6", SDAR_IPV6},
    {"uri", SDAR_URI},
    {"uri-reference", R"((?:)" SDAR_URI R"(|(?://)" SDAR_AUTHORITY SDAR_PATH R"(|/(?:)" SDAR_PCHAR "+" SDAR_PATH
                      R"()?|(?:[A-Za-z0-9._~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})+)" SDAR_PATH R"(|))" SDAR_QUERY R"())"},
    {"json-pointer", R"((?:/(?:[^~/]|~[01])*)*)"},
    {"relative-json-pointer", R"((?:0|[1-9]\d{0,8})(?:#|(?:/(?:[^~/]|~[01])*)*))"},
};

}  // namespace

const char* format_pattern(std::string_view name) {
  for (const auto& format : kFormats)
    if (format.name == name) return format.pattern;
  return nullptr;
}

std::string format_names() {
  std::string out;
  for (size_t i = 0; i < std::size(kFormats); i++)
    out += (i == 0 ? "" : i + 1 == std::size(kFormats) ? " and " : ", ") + std::string(kFormats[i].name);
  return out;
}

}  // namespace sdar::form
