// Transpiles what is imported from test/ and lib/, with its source map, and keeps the result in build/ts.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../build/ts/", import.meta.url));
const own = readFileSync(new URL(import.meta.url));
const isTypeScript = (url) => url.startsWith("file:") && new URL(url).pathname.endsWith(".ts");

/** "./name.js" is name.ts, as TypeScript has it. */
export async function resolve(specifier, context, next) {
  if (/^(\.\.?\/|file:)/.test(specifier) && isTypeScript(context.parentURL ?? "")) {
    const url = new URL(specifier, context.parentURL);
    url.pathname = url.pathname.replace(/\.js$/, ".ts");
    if (isTypeScript(url.href) && existsSync(url)) return { url: url.href, format: "module", shortCircuit: true };
  }
  return next(specifier, context);
}

export async function load(url, context, next) {
  if (!isTypeScript(url)) return next(url, context);
  return { format: "module", source: await transpiled(fileURLToPath(url)), shortCircuit: true };
}

async function transpiled(path) {
  const source = readFileSync(path, "utf8");
  const hash = (...parts) => parts.reduce((sum, part) => sum.update(part), createHash("sha256")).digest("hex");
  const kept = join(folder, hash(path));
  const mark = `\n//${hash(own, source)}`; // at the end, so that lines stay
  const known = existsSync(kept) ? readFileSync(kept, "utf8") : "";
  if (known.endsWith(mark)) return known;
  const { default: ts } = await import("typescript");
  const { outputText } = ts.transpileModule(source, {
    fileName: path,
    compilerOptions: {
      target: ts.ScriptTarget.ES2023,
      module: ts.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
      inlineSourceMap: true,
      inlineSources: true,
    },
  });
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${kept}.${process.pid}`, outputText + mark);
  renameSync(`${kept}.${process.pid}`, kept);
  return outputText;
}
