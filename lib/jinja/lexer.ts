// Template text to tokens, as Jinja2's lexer does with trim_blocks and lstrip_blocks.
import { fail, unsupported } from "./values.js";

export type TokenType =
  | "data"
  | "variable_begin"
  | "variable_end"
  | "block_begin"
  | "block_end"
  | "name"
  | "string"
  | "integer"
  | "float"
  | "operator"
  | "eof";

export interface Token {
  type: TokenType;
  value: string;
  /** counted from 1 */
  line: number;
}

/** What Python takes for white space, in a character class. */
export const pythonSpace = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const s = `[${pythonSpace}]*`;

const begin = new RegExp(`{%([-+]?)${s}raw${s}(?:-%}${s}|%})|{([%#{])([-+]?)`, "g");
const rawEnd = new RegExp(`{%([-+]?)${s}endraw${s}(?:\\+%}|-%}${s}|%}\\n?)`, "g");
const commentEnd = new RegExp(`\\+#}|-#}${s}|#}\\n?`, "g");
const blockEnd = new RegExp(`\\+%}|-%}${s}|%}\\n?`, "y");
const variableEnd = new RegExp(`-}}${s}|}}`, "y");

const onlySpace = new RegExp(`^[${pythonSpace}]+$`);
const trailingSpace = new RegExp(`[${pythonSpace}]+$`);

/** Within a tag, in the order in which they are tried. */
const rules: [TokenType | "space", RegExp][] = [
  ["space", new RegExp(`[${pythonSpace}]+`, "y")],
  ["float", /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[-+]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy],
  ["integer", /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy],
  ["name", /[\p{L}\p{N}\p{M}\p{Pc}]+/uy],
  ["string", /'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/sy],
  ["operator", /\/\/|\*\*|==|!=|>=|<=|[-+/*%~[\](){}><=.:|,;]/y],
];

const closers: Record<string, string> = { "(": ")", "[": "]", "{": "}" };

export function tokenize(template: string): Token[] {
  const source = template.replace(/\r\n?/g, "\n").replace(/\n$/, "");
  const tokens: Token[] = [];
  let at = 0;
  let line = 1;
  let counted = 0;
  let lineStarts = true;

  const failHere = (message: string): never => fail(`line ${lineOf(at)}: ${message}`);
  const lineOf = (position: number): number => {
    for (; counted < position; counted++) if (source[counted] === "\n") line++;
    return line;
  };
  const push = (type: TokenType, value: string) => {
    if (type !== "data" || value !== "") tokens.push({ type, value, line: lineOf(at) });
  };
  const matchAt = (pattern: RegExp, position: number): RegExpExecArray | null => {
    pattern.lastIndex = position;
    return pattern.exec(source);
  };
  const advance = (match: RegExpExecArray) => {
    at = match.index + match[0].length;
    lineStarts = match[0].endsWith("\n");
  };
  /** Text before a tag: "-" takes all white space away; lstrip_blocks that from the line's start on, but for "+". */
  const text = (end: number, sign: string, isBlock: boolean): string => {
    const data = source.slice(at, end);
    if (sign === "-") return data.replace(trailingSpace, "");
    const start = data.lastIndexOf("\n") + 1;
    const strips = isBlock && sign !== "+" && (start > 0 || lineStarts) && onlySpace.test(data.slice(start));
    return strips ? data.slice(0, start) : data;
  };

  const raw = () => {
    if (at === source.length) return;
    const match = matchAt(rawEnd, at) ?? failHere("Missing end of raw directive");
    push("data", text(match.index, match[1] as string, true));
    advance(match);
  };
  const comment = () => {
    if (at < source.length) advance(matchAt(commentEnd, at) ?? failHere("Missing end of comment tag"));
  };

  const tag = (end: RegExp, type: TokenType) => {
    const open: string[] = [];
    for (;;) {
      const closing = open.length === 0 ? matchAt(end, at) : null;
      if (closing) {
        push(type, "");
        return advance(closing);
      }
      const [kind, match] = nextToken();
      if (kind === "operator") balance(open, match[0]);
      if (kind === "string") push("string", unescaped(match[0].slice(1, -1)));
      else if (kind === "name" && !/^[\p{XID_Start}_]\p{XID_Continue}*$/u.test(match[0]))
        failHere(`invalid name ${match[0]}`);
      else if (kind !== "space") push(kind, match[0]);
      advance(match);
    }
  };
  const nextToken = (): [TokenType | "space", RegExpExecArray] => {
    for (const [kind, rule] of rules) {
      const match = matchAt(rule, at);
      if (match) return [kind, match];
    }
    return failHere(at < source.length ? `unexpected char '${source[at]}'` : "a tag without an end");
  };
  const balance = (open: string[], operator: string) => {
    if (closers[operator]) open.push(closers[operator]);
    else if (")]}".includes(operator) && open.pop() !== operator) failHere(`unexpected '${operator}'`);
  };

  while (at < source.length) {
    const match = matchAt(begin, at);
    if (!match) {
      push("data", source.slice(at));
      break;
    }
    const [, rawSign, kind, sign] = match;
    push("data", text(match.index, rawSign ?? (sign as string), kind !== "{"));
    advance(match);
    if (kind === undefined) raw();
    else if (kind === "#") comment();
    else {
      push(kind === "{" ? "variable_begin" : "block_begin", "");
      tag(kind === "{" ? variableEnd : blockEnd, kind === "{" ? "variable_end" : "block_end");
    }
  }
  push("eof", "");
  return tokens;
}

const escapeNames: Record<string, string> = {
  "\n": "",
  "\\": "\\",
  "'": "'",
  '"': '"',
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/** The escapes of Python's string literals; an unknown one stays as it is. */
function unescaped(text: string): string {
  return text.replace(/\\(x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|[0-7]{1,3}|.)/gs, (all, name: string) => {
    if (/^[xu].|^U./.test(name)) return codePoint(Number.parseInt(name.slice(1), 16), all);
    if (/^[0-7]/.test(name)) return String.fromCharCode(Number.parseInt(name, 8));
    if ("xuU".includes(name)) return fail(`a truncated escape ${all} in a text`);
    if (name === "N") return unsupported("the escape \\N{…}");
    if (name > "\x7f") return unsupported(`a backslash before ${name}`);
    return escapeNames[name] ?? all;
  });
}

function codePoint(code: number, written: string): string {
  return code <= 0x10ffff ? String.fromCodePoint(code) : fail(`illegal Unicode character ${written}`);
}
