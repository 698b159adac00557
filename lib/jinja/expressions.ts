// Expressions to functions of a scope, with the grammar of Jinja2's parser.
import { getAttribute, getItem, slice } from "./attributes.js";
import { type Comparison, comparisons } from "./compare.js";
import { Cursor } from "./cursor.js";
import { isFilter, runFilter } from "./filters.js";
import { asText } from "./functions.js";
import type { Token } from "./lexer.js";
import { negate, type Operator, operators, plus } from "./operators.js";
import { call, type Frame } from "./runtime.js";
import { isTest, runTest } from "./tests.js";
import { str } from "./text.js";
import { type Args, Dict, fail, iterate, Tuple, truthy, Undefined, unsupported, type Value } from "./values.js";

export type Evaluate = (frame: Frame) => Value;

/** Names in a macro's body, to find out which of its hidden arguments it takes. */
interface Names {
  loaded: Set<string>;
  stored: Set<string>;
}

const constants: Record<string, Value> = { true: true, True: true, false: false, False: false, none: null, None: null };

export class ExpressionParser extends Cursor {
  /** Above 0 within a branch, where Jinja2 lets a filter or test be unknown until it is reached. */
  protected branches = 0;
  /** Why the template is refused: unknown filters and tests outside of branches. */
  protected unknown: string[] = [];
  protected readonly names: Names[] = [];
  /** The expression parsed last, when it is a call, to be called with more arguments: what a call block does. */
  protected lastCall: ((more: [string, Value][]) => Evaluate) | undefined;

  /** One expression, or several with commas between, which are a tuple. */
  protected tuple({
    conditional = true,
    end,
    empty = false,
  }: {
    conditional?: boolean;
    end?: string;
    empty?: boolean;
  } = {}): Evaluate {
    const items: Evaluate[] = [];
    let comma = false;
    while (!this.isTupleEnd(end)) {
      items.push(conditional ? this.expression() : this.or());
      if (!this.operator(",")) break;
      comma = true;
    }
    const [first] = items;
    if (!comma && first) return first;
    if (!comma && !empty) this.failHere(`expected an expression, got '${this.token.value || this.token.type}'`);
    this.lastCall = undefined;
    return (frame) => new Tuple(items.map((item) => item(frame)));
  }

  protected expression(): Evaluate {
    const known = this.unknown.length;
    let value = this.or();
    while (this.skip("name", "if")) {
      const then = value;
      this.unknown.length = known;
      this.branches++;
      const condition = this.or();
      const otherwise = this.skip("name", "else")
        ? this.expression()
        : () => new Undefined("the inline if-expression evaluated to false and no else section was defined.");
      this.branches--;
      this.lastCall = undefined;
      value = (frame) => (truthy(condition(frame)) ? then(frame) : otherwise(frame));
    }
    return value;
  }

  protected or(): Evaluate {
    return this.leftToRight(
      () => this.and(),
      "or",
      (left, right) => (frame) => {
        const value = left(frame);
        return truthy(value) ? value : right(frame);
      },
    );
  }

  private and(): Evaluate {
    return this.leftToRight(
      () => this.not(),
      "and",
      (left, right) => (frame) => {
        const value = left(frame);
        return truthy(value) ? right(frame) : value;
      },
    );
  }

  private leftToRight(
    operand: () => Evaluate,
    name: string,
    combine: (left: Evaluate, right: Evaluate) => Evaluate,
  ): Evaluate {
    let left = operand();
    while (this.skip("name", name)) {
      left = combine(left, operand());
      this.lastCall = undefined;
    }
    return left;
  }

  private not(): Evaluate {
    if (!this.skip("name", "not")) return this.comparison();
    const value = this.not();
    this.lastCall = undefined;
    return (frame) => !truthy(value(frame));
  }

  /** a < b <= c: each operand is evaluated once, and none after the first that is false. */
  private comparison(): Evaluate {
    const first = this.sum();
    const rest: { holds: (a: Value, b: Value) => boolean; operand: Evaluate }[] = [];
    for (let name = this.comparator(); name; name = this.comparator()) {
      rest.push({ holds: comparisons[name as Comparison], operand: this.sum() });
    }
    if (rest.length === 0) return first;
    this.lastCall = undefined;
    return (frame) => {
      let left = first(frame);
      for (const { holds, operand } of rest) {
        const right = operand(frame);
        if (!holds(left, right)) return false;
        left = right;
      }
      return true;
    };
  }

  private comparator(): string | undefined {
    if (this.skip("name", "in")) return "in";
    const next = this.tokens[this.at + 1];
    if (this.is("name", "not") && next?.type === "name" && next.value === "in") {
      this.at += 2;
      return "not in";
    }
    return this.operator("==", "!=", "<", "<=", ">", ">=");
  }

  private sum(): Evaluate {
    return this.binary(() => this.concatenation(), "+", "-");
  }

  private concatenation(): Evaluate {
    const parts = [this.product()];
    while (this.operator("~")) parts.push(this.product());
    const [first] = parts;
    if (parts.length === 1) return first as Evaluate;
    this.lastCall = undefined;
    return (frame) => parts.map((part) => str(part(frame))).join("");
  }

  private product(): Evaluate {
    return this.binary(() => this.binary(() => this.unary(), "**"), "*", "/", "//", "%");
  }

  private binary(operand: () => Evaluate, ...names: string[]): Evaluate {
    let value = operand();
    for (let name = this.operator(...names); name; name = this.operator(...names)) {
      const [left, compute, right] = [value, operators[name as Operator], operand()];
      this.lastCall = undefined;
      value = (frame) => compute(left(frame), right(frame));
    }
    return value;
  }

  private unary(filtered = true): Evaluate {
    let value: Evaluate;
    const sign = this.operator("-", "+");
    if (sign) {
      const operand = this.unary(false);
      value = (frame) => (sign === "-" ? negate : plus)(operand(frame));
      this.lastCall = undefined;
    } else value = this.primary();
    value = this.postfix(value);
    return filtered ? this.filtersAndTests(value) : value;
  }

  private primary(): Evaluate {
    const { token } = this;
    this.at++;
    this.lastCall = undefined;
    switch (token.type) {
      case "name": {
        if (Object.hasOwn(constants, token.value)) return constant(constants[token.value] as Value);
        if (token.value === "self") return unsupported("'self'");
        for (const { loaded, stored } of this.names) if (!stored.has(token.value)) loaded.add(token.value);
        return (frame) => frame.get(token.value);
      }
      case "string": {
        let text = token.value;
        while (this.is("string")) text += this.tokens[this.at++]?.value;
        return constant(text);
      }
      case "integer":
        return constant(BigInt(token.value.replaceAll("_", "")));
      case "float":
        return constant(Number(token.value.replaceAll("_", "")));
      case "operator":
        if (token.value === "(") {
          const value = this.tuple({ empty: true });
          this.expect("operator", ")");
          return value;
        }
        if (token.value === "[") return this.list();
        if (token.value === "{") return this.dict();
        break;
      default:
    }
    return this.failHere(`unexpected '${token.value || token.type}'`, token);
  }

  private list(): Evaluate {
    const items = this.separated("]", () => this.expression());
    this.lastCall = undefined;
    return (frame) => items.map((item) => item(frame));
  }

  private dict(): Evaluate {
    const pairs = this.separated("}", () => {
      const key = this.expression();
      this.expect("operator", ":");
      return [key, this.expression()] as const;
    });
    this.lastCall = undefined;
    return (frame) => new Dict(pairs.map(([key, value]) => [key(frame), value(frame)]));
  }

  private postfix(value: Evaluate): Evaluate {
    let result = value;
    for (;;) {
      if (this.operator(".")) result = this.member(result);
      else if (this.operator("[")) result = this.subscript(result);
      else if (this.is("operator", "(")) result = this.call(result);
      else return result;
    }
  }

  private member(value: Evaluate): Evaluate {
    const { token } = this;
    this.lastCall = undefined;
    if (this.skip("name")) return (frame) => getAttribute(value(frame), token.value);
    if (!this.skip("integer")) this.failHere("expected name or number");
    const index = BigInt(token.value.replaceAll("_", ""));
    return (frame) => getItem(value(frame), index);
  }

  private subscript(value: Evaluate): Evaluate {
    const parts: (Evaluate | undefined)[] = [];
    let colons = 0;
    while (!this.is("operator", "]", ",")) {
      if (this.operator(":")) colons++;
      else if (parts.length > colons) this.expect("operator", "]");
      else parts[colons] = this.expression();
    }
    if (colons > 2) this.failHere("expected ']'");
    if (this.operator(",")) return this.tupleSubscript(value, parts[0], colons);
    this.expect("operator", "]");
    this.lastCall = undefined;
    const [start, stop, step] = parts;
    if (colons === 0) {
      if (!start) return (frame) => getItem(value(frame), new Tuple([]));
      return (frame) => getItem(value(frame), start(frame));
    }
    return (frame) => slice(value(frame), start?.(frame) ?? null, stop?.(frame) ?? null, step?.(frame) ?? null);
  }

  private tupleSubscript(value: Evaluate, first: Evaluate | undefined, colons: number): Evaluate {
    if (colons > 0 || !first) return unsupported("a slice in several dimensions");
    const items = [first, this.expression()];
    while (this.operator(",")) items.push(this.expression());
    this.expect("operator", "]");
    this.lastCall = undefined;
    return (frame) => getItem(value(frame), new Tuple(items.map((item) => item(frame))));
  }

  private call(callee: Evaluate): Evaluate {
    const args = this.args();
    const calling = (more: [string, Value][]) => (frame: Frame) => {
      const target = callee(frame);
      return call(target, withMore(args(frame), more));
    };
    this.lastCall = calling;
    return calling([]);
  }

  /** (a, b, name=c, *more, **others) */
  protected args(): (frame: Frame) => Args {
    const positional: Evaluate[] = [];
    const named: [string, Evaluate][] = [];
    let spread: Evaluate | undefined;
    let spreadNamed: Evaluate | undefined;
    this.expect("operator", "(");
    const check = (good: boolean) => good || this.failHere("invalid syntax for function call expression");
    for (let first = true; !this.operator(")"); first = false) {
      if (!first) {
        this.expect("operator", ",");
        if (this.operator(")")) break;
      }
      const next = this.tokens[this.at + 1];
      if (this.operator("*")) {
        check(!spread && !spreadNamed);
        spread = this.expression();
      } else if (this.operator("**")) {
        check(!spreadNamed);
        spreadNamed = this.expression();
      } else if (this.is("name") && next?.type === "operator" && next.value === "=") {
        check(!spreadNamed);
        const name = this.token.value;
        this.at += 2;
        if (named.some(([other]) => other === name)) this.failHere(`keyword argument repeated: ${name}`);
        named.push([name, this.expression()]);
      } else {
        check(!spread && !spreadNamed && named.length === 0);
        positional.push(this.expression());
      }
    }
    return (frame) => {
      const args: Args = { positional: positional.map((one) => one(frame)), named: new Map() };
      if (spread) args.positional.push(...iterate(spread(frame)));
      for (const [name, value] of named) args.named.set(name, value(frame));
      if (!spreadNamed) return args;
      const others = spreadNamed(frame);
      if (!(others instanceof Dict)) return fail("argument after ** must be a mapping");
      return withMore(
        args,
        Array.from(others.entries(), ([name, value]) => [asText(name), value]),
      );
    };
  }

  private filtersAndTests(value: Evaluate): Evaluate {
    let result = value;
    for (;;) {
      if (this.operator("|")) result = this.filter(result);
      else if (this.skip("name", "is")) result = this.test(result);
      else if (this.is("operator", "(")) result = this.call(result);
      else return result;
    }
  }

  /** What follows a "|": a filter of `value`. */
  protected filter(value: Evaluate): Evaluate {
    const { token } = this;
    const name = this.dottedName();
    if (!isFilter(name)) this.noteUnknown("filter", name, token);
    const args = this.is("operator", "(") ? this.args() : undefined;
    this.lastCall = undefined;
    return (frame) => runFilter(name, value(frame), args ? args(frame) : { positional: [], named: new Map() });
  }

  private noteUnknown(kind: string, name: string, { line }: Token): void {
    if (this.branches === 0) this.unknown.push(`line ${line}: No ${kind} named '${name}'.`);
  }

  private test(value: Evaluate): Evaluate {
    const negated = this.skip("name", "not");
    const { token } = this;
    const name = this.dottedName();
    if (!isTest(name)) this.noteUnknown("test", name, token);
    const args = this.testArgs();
    this.lastCall = undefined;
    return (frame) => {
      const result = runTest(name, value(frame), args(frame));
      return negated ? !truthy(result) : result;
    };
  }

  /** In brackets, or a single one without: `x is divisibleby 3`. */
  private testArgs(): (frame: Frame) => Args {
    if (this.is("operator", "(")) return this.args();
    const starts =
      this.is("name") || this.is("string") || this.is("integer") || this.is("float") || this.is("operator", "[", "{");
    if (!starts || this.is("name", "else", "or", "and")) return () => ({ positional: [], named: new Map() });
    if (this.is("name", "is")) this.failHere("You cannot chain multiple tests with is");
    const only = this.postfix(this.primary());
    return (frame) => ({ positional: [only(frame)], named: new Map() });
  }
}

const constant =
  (value: Value): Evaluate =>
  () =>
    value;

function withMore(args: Args, more: [string, Value][]): Args {
  for (const [name, value] of more) {
    if (args.named.has(name)) fail(`got multiple values for keyword argument '${name}'`);
    args.named.set(name, value);
  }
  return args;
}
