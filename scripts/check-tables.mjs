// Tables that stand on both sides of the N-API boundary say the same: strategies, formats, error codes, finish reasons,
// events, and the fields of the objects that cross it. Prints file, table and entry of each difference.
// Of the native side it knows how enumerations, constants, and calls with a field's name are written; the TypeScript
// side it parses, and finds a declaration in whichever file of lib/ has it.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";
import { root } from "./cmake.mjs";

let wrong = 0;
function complain(file, table, what) {
  console.log(`${file}: ${table}: ${what}`);
  wrong++;
}

/** `ours` as the file `there` has it: [file, names], in the same order unless that is of no meaning. */
function compare(table, [nativeFile, native], [file, names], { ordered = true } = {}) {
  if (native.length === 0) complain(nativeFile, table, "not found");
  if (names.length === 0) complain(file, table, "not found");
  if (native.length === 0 || names.length === 0) return;
  for (const name of native) if (!names.includes(name)) complain(file, table, `${name} of ${nativeFile} is missing`);
  for (const name of names) if (!native.includes(name)) complain(nativeFile, table, `${name} of ${file} is missing`);
  if (!ordered || new Set(native).size !== new Set(names).size) return;
  const at = native.findIndex((name, i) => name !== names[i]);
  if (at >= 0 && native.every((name) => names.includes(name)))
    complain(file, table, `entry ${at} is ${names[at]}, in ${nativeFile} it is ${native[at]}`);
}

const camel = (name) => name.replace(/_(\w)/g, (_, c) => c.toUpperCase());

// ---- the native side

const withoutComments = (text) => text.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
const sources = readdirSync(join(root, "native"), { recursive: true })
  .filter((name) => /\.(h|cc)$/.test(name))
  .sort()
  .map((name) => ({
    file: `native/${name.replaceAll("\\", "/")}`,
    text: withoutComments(readFileSync(join(root, "native", name), "utf8")),
  }));

/** What `pattern` captures first in the first source that has it, with that file's name. */
function find(pattern, what) {
  for (const { file, text } of sources) {
    const found = pattern.exec(text)?.[1];
    if (found !== undefined) return [file, found];
  }
  return ["native", "", complain("native", what, "not found")];
}

function enumerators(name) {
  const [file, body] = find(new RegExp(`enum class ${name}\\b[^{]*\\{([^}]*)\\}`), `enum ${name}`);
  return [file, [...body.matchAll(/(\w+)\s*(?:=[^,]*)?(?:,|$)/g)].map(([, entry]) => entry)];
}

/** The body of a function defined at the margin of a file. */
const functionBody = (name) =>
  find(new RegExp(`^[\\w:<>&* ]+\\b${name}\\([^;{]*?\\) \\{((?:\n[\\s\\S]*?^| .*)\\})`, "m"), name);

/** The fields that a function reads of the object `o`. */
function fieldsRead(name) {
  const [file, body] = functionBody(name);
  return [file, [...new Set([...body.matchAll(/\bo(?:,|\.Get\()\s*"(\w+)"/g)].map(([, field]) => field))]];
}

/** Constants that are lists of names: inline constexpr std::array kNames{"a", "b"}. */
const lists = new Map(
  sources.flatMap(({ file, text }) =>
    [...text.matchAll(/constexpr std::array (\w+)\{([^}]*)\}/g)].map(([, list, names]) => [
      list,
      [file, [...names.matchAll(/"(\w+)"/g)].map(([, name]) => name)],
    ]),
  ),
);

/** The fields that a function sets: of its result, and of objects in it, as outer.inner. */
function fieldsSet(name) {
  const [file, body] = functionBody(name);
  const inner = new Map(); // the variable of each object or list in the result, and its field
  const sets = [];
  const call = /\b(?:(\w+)\.Set|set)\(\s*(?:"(\w+)"|(\w+)\[\w+\])\s*,\s*([^;]*)\)/g;
  for (const [, object = "o", field, list, value] of body.matchAll(call)) {
    sets.push(...(field ? [field] : (lists.get(list)?.[1] ?? [])).map((name) => ({ object, name })));
    if (field && /^\w+$/.test(value)) inner.set(value, field);
  }
  // Items of a list are made in a loop, as another `o`: `cards.Set(i, o)`.
  const items = /\b(\w+)\.Set\((?:uint32_t\()?\w+\)?, (\w+)\)/.exec(body);
  if (items && inner.has(items[1])) {
    const start = body.lastIndexOf(`auto ${items[2]} = `, items.index);
    const own = new Set([...body.slice(start, items.index).matchAll(call)].map((match) => match[2]));
    let left = own.size;
    for (const one of sets)
      if (left > 0 && one.object === items[2] && own.has(one.name) && left--) one.object = items[1];
  }
  return [file, sets.map(({ object, name }) => (inner.has(object) ? `${inner.get(object)}.${name}` : name))];
}

// ---- the TypeScript side

const modules = readdirSync(join(root, "lib"), { recursive: true })
  .filter((name) => name.endsWith(".ts"))
  .sort()
  .map((name) => {
    const file = `lib/${name.replaceAll("\\", "/")}`;
    return ts.createSourceFile(file, readFileSync(join(root, file), "utf8"), ts.ScriptTarget.Latest, true);
  });

function* nodesOf(node) {
  yield node;
  for (const child of node.getChildren()) yield* nodesOf(child);
}

/** The declaration of a name at the top of a module of lib/; the library's come before those of folders below it. */
function declared(name) {
  const byDepth = modules.toSorted((a, b) => a.fileName.split("/").length - b.fileName.split("/").length);
  for (const module of byDepth) {
    for (const statement of module.statements) {
      const list = ts.isVariableStatement(statement) ? statement.declarationList.declarations : [statement];
      const found = list.find((declaration) => declaration.name?.text === name);
      if (found) return found;
    }
  }
  return undefined;
}

/** Strings that stand for "chosen by the engine". */
const automatic = ["", "auto"];

/** All strings of a type, a list, or a call such as oneOf("auto", ...formats), whatever names they go by. */
function stringsOf(node) {
  if (!node) return [];
  if (ts.isStringLiteralLike(node)) return automatic.includes(node.text) ? [] : [node.text];
  if (ts.isIdentifier(node)) return stringsOf(declared(node.text));
  if (ts.isVariableDeclaration(node)) return stringsOf(node.initializer);
  if (ts.isTypeAliasDeclaration(node)) return stringsOf(node.type);
  if (ts.isTypeReferenceNode(node)) return stringsOf(node.typeName);
  if (ts.isTypeQueryNode(node)) return stringsOf(node.exprName);
  if (ts.isIndexedAccessTypeNode(node)) return stringsOf(node.objectType);
  if (ts.isLiteralTypeNode(node)) return stringsOf(node.literal);
  if (ts.isUnionTypeNode(node)) return node.types.flatMap(stringsOf);
  if (ts.isArrayLiteralExpression(node)) return node.elements.flatMap(stringsOf);
  if (ts.isObjectLiteralExpression(node)) return node.properties.map((property) => property.name.text);
  if (ts.isCallExpression(node)) {
    const strings = node.arguments.flatMap(stringsOf);
    return strings.length > 0 || !ts.isPropertyAccessExpression(node.expression)
      ? strings
      : stringsOf(node.expression.expression); // oneOf(…).optional()
  }
  return stringsOf(node.expression ?? node.type); // …, as const, satisfies, parentheses
}

const fileOf = (node) => node?.getSourceFile().fileName ?? "lib";
const strings = (name) => [fileOf(declared(name)), stringsOf(declared(name))];

/** The member of a type or object literal that `path` leads to from a declaration: "LoadOptions", "kvCache", "dtype". */
function member(name, ...path) {
  let node = declared(name);
  for (const step of path) {
    const own = node && [...nodesOf(node.type ?? node.initializer ?? node)];
    node = own?.find((one) => (ts.isPropertySignature(one) || ts.isPropertyAssignment(one)) && one.name.text === step);
  }
  return [fileOf(declared(name)), stringsOf(ts.isPropertyAssignment(node ?? {}) ? node.initializer : node?.type)];
}

/** The fields of an interface, and those of objects in it as outer.inner; of lists, those of their elements. */
function fieldsOf(name) {
  const of = (members) =>
    members.filter(ts.isPropertySignature).flatMap((one) => {
      const field = one.name.text;
      const type = ts.isArrayTypeNode(one.type) ? one.type.elementType : one.type;
      return ts.isTypeLiteralNode(type) ? [field, ...of(type.members).map((inner) => `${field}.${inner}`)] : [field];
    });
  const node = declared(name);
  return [fileOf(node), node ? of(node.members ?? node.type?.members ?? []) : []];
}

// ---- the tables

const strategies = enumerators("Strategy");
compare("strategies", strategies, strings("strategies"));
compare("type Strategy", strategies, strings("Strategy"));
const [countFile, count] = find(/\bkStrategies = (\d+)/, "kStrategies");
if (Number(count) !== strategies[1].length) complain(countFile, "kStrategies", `${count} of ${strategies[1].length}`);

const weightFormats = enumerators("WeightFormat");
compare("type WeightFormat", weightFormats, strings("WeightFormat"));
compare("LoadOptions.weights", weightFormats, member("LoadOptions", "weights"));
compare("loadSchema.weights", weightFormats, member("loadSchema", "weights"));
compare("weightFormats", weightFormats, strings("weightFormats"));
const kvFormats = enumerators("KvFormat");
compare("NativeLoadOptions.kvDtype", kvFormats, member("NativeLoadOptions", "kvDtype"));
compare("LoadOptions.kvCache.dtype", kvFormats, member("LoadOptions", "kvCache", "dtype"));
compare("kvCacheSchema.dtype", kvFormats, member("kvCacheSchema", "dtype"));
compare("kvFormats", kvFormats, strings("kvFormats"));

compare("decodings", lists.get("kDecodings") ?? ["native", []], strings("decodings"));

const finishReasons = enumerators("FinishReason");
compare("type FinishReason", finishReasons, strings("FinishReason"));
compare("finishReasons", finishReasons, strings("finishReasons"));

// The library has codes of its own besides.
const [errorFile, errors] = find(/namespace code \{([\s\S]*?)\n\}/, "error codes");
const [codesFile, codes] = strings("errorCodes");
for (const [, code] of errors.matchAll(/"(\w+)"/g))
  if (!codes.includes(code)) complain(codesFile, "errorCodes", `${code} of ${errorFile} is missing`);

compare("load options", fieldsRead("to_options"), fieldsOf("NativeLoadOptions"), { ordered: false });
compare("request", fieldsRead("to_request"), fieldsOf("NativeRequest"), { ordered: false });
compare("model info", fieldsSet("from_info"), fieldsOf("NativeModelInfo"), { ordered: false });
compare("stats", fieldsSet("from_stats"), fieldsOf("NativeStats"), { ordered: false });
compare("events", fieldsSet("from_records"), fieldsOf("NativeRecords"), { ordered: false });
compare("training options", fieldsRead("to_training"), fieldsOf("NativeTrainOptions"), { ordered: false });
compare("training info", fieldsSet("from_training"), fieldsOf("NativeTrainInfo"), { ordered: false });
compare("training steps", fieldsSet("from_report"), fieldsOf("NativeStepReport"), { ordered: false });
compare("objectives", lists.get("kObjectives") ?? ["native", []], strings("objectives"));
compare("formats of training", lists.get("kFormats") ?? ["native", []], strings("computeFormats"));
compare("optimizers", lists.get("kOptimizers") ?? ["native", []], strings("optimizers"));
compare("LoRA targets", lists.get("kLoraTargets") ?? ["native", []], strings("loraTargets"));
compare("decays", lists.get("kDecays") ?? ["native", []], strings("decays"));
compare("tokenFields", lists.get("kTokenFields") ?? ["native", []], strings("tokenFields"));
compare("names of finish reasons", lists.get("kFinishReasons") ?? ["native", []], finishReasons);
compare("CUDA devices", fieldsSet("probe_cuda"), fieldsOf("NativeCuda"), { ordered: false });

// Kinds of events by name and number, and the order of their numbers wherever TypeScript takes these apart.
const [eventsFile, constants] = find(/class EventBuffer\b[\s\S]*?static constexpr double (k[^;]*);/, "kinds of events");
const kinds = [...constants.matchAll(/k(\w+) = (\d+)/g)].map(([, name, number]) => [
  name.toLowerCase(),
  Number(number),
]);
const eventKind = declared("eventKind");
const known = [...nodesOf(eventKind?.initializer ?? eventKind ?? modules[0])]
  .filter((node) => ts.isPropertyAssignment(node) && ts.isNumericLiteral(node.initializer))
  .map((node) => [node.name.text, Number(node.initializer.text)]);
const asText = (pairs) => pairs.map(([name, number]) => `${name} = ${number}`);
compare("kinds of events", [eventsFile, asText(kinds)], [fileOf(eventKind), asText(known)], { ordered: false });

/** Names in the order in which arrays of numbers are taken apart: const [a, b = 0] = values. */
const orders = modules.flatMap((module) =>
  [...nodesOf(module)].filter(ts.isArrayBindingPattern).map((node) => ({
    file: module.fileName,
    names: node.elements.filter((one) => !one.dotDotDotToken).map((one) => one.name?.getText() ?? ""),
  })),
);
for (const [kind] of kinds) {
  const [file, body] = functionBody(`EventBuffer::${kind}`);
  for (const fields of recordsOf(body)) {
    const shared = ({ names }) => names.filter((name) => fields.includes(name)).length;
    const likeness = (order) => 2 * shared(order) - order.names.length;
    const [closest] = orders.toSorted((a, b) => likeness(b) - likeness(a));
    if (!closest || shared(closest) * 2 <= fields.length)
      complain("lib", `event ${kind}`, `nothing takes apart ${fields.join(", ")} of ${file}`);
    else compare(`event ${kind}`, [file, fields], [closest.file, closest.names]);
  }
}

/** The fields, two or more, that each list of numbers in the body of an EventBuffer's function consists of. */
function recordsOf(body) {
  // The kind, the request and the length come first.
  return [...body.matchAll(/\{(?:k\w+, double\(request\), [^{}]*?\d[^{},]*, )?([^{}]*)\}/g)]
    .map(([, list]) => [...list.matchAll(/double\((?:\w+\.)?(\w+)\)/g)].map(([, name]) => camel(name)))
    .filter((fields) => fields.length > 1);
}

process.exitCode = wrong > 0 ? 1 : 0;
