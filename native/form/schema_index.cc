#include "form/schema_index.h"

#include "util/error.h"

namespace sdar::form {
namespace {

/// A reference against a base, as RFC 3986, section 5.2 has it.
std::string join(std::string_view base, std::string_view reference) {
  const auto scheme = [](std::string_view uri) {
    const size_t colon = uri.find_first_of(":/?#");
    return colon != uri.npos && uri[colon] == ':' ? colon + 1 : 0;
  };
  if (reference.empty()) return std::string(base);
  const size_t base_scheme = scheme(base);
  if (scheme(reference) > 0) return std::string(reference);
  if (reference.starts_with("//")) return std::string(base.substr(0, base_scheme)) + std::string(reference);
  size_t authority = base_scheme;
  if (base.substr(base_scheme).starts_with("//")) authority = std::min(base.find('/', base_scheme + 2), base.size());
  std::string path;
  if (reference.starts_with('/')) {
    path = reference;
  } else {
    const size_t slash = base.rfind('/');
    path = slash == base.npos || slash < authority ? "" : std::string(base.substr(authority, slash + 1 - authority));
    path += reference;
  }
  // Dot segments.
  std::string out;
  for (size_t i = 0; i < path.size();) {
    const size_t next = std::min(path.find('/', i), path.size());
    const std::string_view segment = std::string_view(path).substr(i, next - i);
    const bool more = next < path.size();
    if (segment == "..") {
      if (!out.empty()) out.pop_back();
      out.resize(out.rfind('/') == out.npos ? 0 : out.rfind('/') + 1);
    } else if (segment != ".") {
      out += segment;
      if (more) out += '/';
    }
    i = next + 1;
  }
  return std::string(base.substr(0, authority)) + out;
}

int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 32);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

std::string unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] == '%' && i + 2 < text.size() && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0) {
      out += static_cast<char>(hex(text[i + 1]) * 16 + hex(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string escape(std::string_view name) {
  std::string out;
  for (const char c : name.substr(0, 80)) {
    if (c == '~')
      out += "~0";
    else if (c == '/')
      out += "~1";
    else
      out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  }
  return out;
}

const Value* pointer(const Value* at, std::string_view path) {
  while (at && !path.empty()) {
    path.remove_prefix(1);
    const size_t end = std::min(path.find('/'), path.size());
    std::string name;
    for (size_t i = 0; i < end; i++) {
      if (path[i] == '~' && i + 1 < end)
        name += path[++i] == '0' ? '~' : '/';
      else
        name += path[i];
    }
    path.remove_prefix(end);
    if (at->is(Value::kArray)) {
      const bool digits = !name.empty() && name.size() < 9 && name.find_first_not_of("0123456789") == name.npos;
      const size_t i = digits ? std::stoul(name) : at->items.size();
      at = i < at->items.size() ? &at->items[i] : nullptr;
    } else {
      at = at->find(name);
    }
  }
  return at;
}

}  // namespace

SchemaIndex::SchemaIndex(const Value& root, std::string at) : root_(root), at_(std::move(at)) {
  bases_[&root] = "";
  by_uri_[""] = &root;
  add(root, {nullptr, {}, 0, &root}, "", false);
}

void SchemaIndex::add(const Value& value, Place place, const std::string& base, bool literal) {
  std::string own = base;
  const auto text = [&](const char* name) {
    const Value* member = value.find(name);
    return member && member->is(Value::kString) ? &member->text : nullptr;
  };
  // Values of const and enum are no schemas: an $id there names nothing.
  literal |= place.parent && place.parent->is(Value::kObject) && (place.name == "const" || place.name == "enum");
  if (value.is(Value::kObject) && !literal) {
    if (const std::string* id = text("$id")) {
      const std::string uri = join(base, std::string_view(*id).substr(0, id->find('#')));
      own = uri;
      place.resource = &value;
      bases_[&value] = uri;
      by_uri_.try_emplace(uri, &value);
    }
    for (const char* name : {"$anchor", "$dynamicAnchor"})
      if (const std::string* anchor = text(name)) by_uri_.try_emplace(own + "#" + *anchor, &value);
  }
  places_.emplace(&value, place);
  for (const auto& [name, member] : value.members) add(member, {&value, name, 0, place.resource}, own, literal);
  for (size_t i = 0; i < value.items.size(); i++) add(value.items[i], {&value, {}, i, place.resource}, own, literal);
}

std::string SchemaIndex::path(const Value& value) const {
  std::string out;
  for (const Value* v = &value; v != &root_;) {
    const auto at = places_.find(v);
    if (at == places_.end()) break;
    const Place& place = at->second;
    out = "/" + (place.parent->is(Value::kArray) ? std::to_string(place.item) : escape(place.name)) + out;
    v = place.parent;
  }
  return at_ + "#" + out;
}

const Value& SchemaIndex::resolve(const Value& from, const std::string& reference) const {
  const size_t hash = std::min(reference.find('#'), reference.size());
  const std::string fragment = hash < reference.size() ? unescape(std::string_view(reference).substr(hash + 1)) : "";
  const std::string uri = join(bases_.at(places_.at(&from).resource), std::string_view(reference).substr(0, hash));
  const Value* found = nullptr;
  if (fragment.empty() || fragment[0] == '/') {
    const auto resource = by_uri_.find(uri);
    if (resource != by_uri_.end()) found = pointer(resource->second, fragment);
  } else if (const auto anchor = by_uri_.find(uri + "#" + fragment); anchor != by_uri_.end()) {
    found = anchor->second;
  }
  if (!found)
    throw Error(code::kInvalidOption, path(from) + "/$ref is " +
                                          Value{.kind = Value::kString, .text = reference}.brief() +
                                          ", which is not in this schema; others are not fetched");
  return *found;
}

}  // namespace sdar::form
