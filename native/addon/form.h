// Compiled forms as JavaScript holds them.
#pragma once
#include <napi.h>

#include <memory>

#include "form/program.h"

namespace sdar::addon {

using FormHandle = std::shared_ptr<const form::Program>;

/// The form of a handle that compileForm gave; throws a TypeError for anything else.
FormHandle to_form(const Napi::Value& value);

}  // namespace sdar::addon
