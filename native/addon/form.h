// Forms of answers as JavaScript holds them: compiled on a thread of their own, then named by requests.
#pragma once
#include <napi.h>

#include <memory>

#include "engine/forms.h"

namespace sdar::addon {

/// compileForm(json): Promise<{ form, leastTokens, bytes, runs }>, INVALID_OPTION as Forms::compile.
Napi::Value compile_form(const Napi::CallbackInfo& info, std::shared_ptr<Forms> forms);

/// setSplits(form, ids, counts): the tokenizer's tokens of `runs`, one after the other. Once, before the form is used.
void set_splits(const Napi::CallbackInfo& info);

/// The form of a handle that compileForm gave; throws a TypeError for anything else.
std::shared_ptr<form::LiveForm> to_form(const Napi::Value& value);

}  // namespace sdar::addon
