// Templates to functions that write text, with the grammar of Jinja2's parser and the tags of transformers.
import { type Evaluate, ExpressionParser } from "./expressions.js";
import { type Token, tokenize } from "./lexer.js";
import { Frame, globals, Loop, Macro, Namespace, Output, type Parameter } from "./runtime.js";
import { str } from "./text.js";
import { fail, fromJs, iterate, truthy, typeName, unsupported, type Value } from "./values.js";

/** How a statement ended: a break and a continue go up to their loop. */
type Signal = "break" | "continue" | undefined;
type Execute = (frame: Frame, out: Output) => Signal;
type Assign = (frame: Frame, value: Value) => void;

const notHere = new Set(["autoescape", "block", "extends", "from", "import", "include"]);

/**
 * A chat template as a function of its variables, which renders as Python's Jinja2 does with the settings of
 * transformers. Throws a JinjaError for what cannot be parsed, and for what is not supported; so does the function.
 */
export function compileTemplate(source: string): (variables: Record<string, unknown>) => string {
  const body = new Parser(tokenize(source)).template();
  return (variables) => {
    const given = new Frame(globals());
    for (const [name, value] of Object.entries(variables)) if (value !== undefined) given.set(name, fromJs(value));
    return capture(body, new Frame(given));
  };
}

function capture(body: Execute, frame: Frame): string {
  const out = new Output();
  body(frame, out);
  return out.toString();
}

class Parser extends ExpressionParser {
  /** Loops around, back to the macro or block that breaks cannot leave. */
  private loops = 0;
  /** All loops around: within one, `loop` is not to be assigned to. */
  private fors = 0;

  template(): Execute {
    const body = this.statements();
    const [unknown] = this.unknown;
    return unknown === undefined ? body : fail(unknown);
  }

  /** Up to one of the tags `ends`, whose name is the next token; without any, to the end of the template. */
  private statements(...ends: string[]): Execute {
    const parts: Execute[] = [];
    for (;;) {
      const { token } = this;
      this.at++;
      if (token.type === "data") {
        parts.push((_, out) => void out.write(token.value));
      } else if (token.type === "variable_begin") {
        const value = this.tuple();
        this.expect("variable_end");
        parts.push((frame, out) => void out.write(str(value(frame))));
      } else if (token.type === "block_begin") {
        if (this.is("name", ...ends) && ends.length > 0) return sequence(parts);
        parts.push(this.statement());
        this.expect("block_end");
      } else if (ends.length === 0) return sequence(parts);
      else this.failHere(`unexpected end of template, looking for '${ends.join("' or '")}'`, token);
    }
  }

  /** What follows an opening tag, to its end tag, which goes along. */
  private body(end: string): Execute {
    const body = this.between(end);
    this.at++;
    return body;
  }

  private between(...ends: string[]): Execute {
    this.operator(":");
    this.expect("block_end");
    return this.statements(...ends);
  }

  private statement(): Execute {
    const token = this.expect("name");
    switch (token.value) {
      case "if":
        return this.ifElse();
      case "for":
        return this.forLoop();
      case "set":
        return this.set();
      case "with":
        return this.with();
      case "macro":
        return this.macro();
      case "call":
        return this.callBlock();
      case "filter":
        return this.filterBlock();
      case "print":
        return this.print();
      case "generation":
        return this.generation();
      case "break":
      case "continue": {
        const signal = token.value;
        if (this.loops === 0) this.failHere(`'${signal}' outside loop`, token);
        return () => signal;
      }
      default:
        if (notHere.has(token.value)) return unsupported(`the tag '${token.value}'`);
        return this.failHere(`Encountered unknown tag '${token.value}'.`, token);
    }
  }

  private ifElse(): Execute {
    const condition = this.tuple({ conditional: false });
    this.branches++;
    const then = this.between("elif", "else", "endif");
    let otherwise: Execute = () => undefined;
    if (this.skip("name", "elif")) otherwise = this.ifElse();
    else if (this.expect("name").value === "else") otherwise = this.body("endif");
    this.branches--;
    return (frame, out) => (truthy(condition(frame)) ? then(frame, out) : otherwise(frame, out));
  }

  private forLoop(): Execute {
    this.fors++;
    const assign = this.target();
    this.expect("name", "in");
    const iterable = this.tuple({ conditional: false, end: "recursive" });
    const filter = this.skip("name", "if") ? this.expression() : undefined;
    const recursive = this.skip("name", "recursive");
    this.loops++;
    const body = this.between("endfor", "else");
    this.loops--;
    const otherwise = this.expect("name").value === "else" ? this.body("endfor") : undefined;
    this.fors--;

    const run = (frame: Frame, out: Output, value: Value, depth0: number): Signal => {
      let items = [...iterate(value)];
      if (filter) {
        items = items.filter((item) => {
          const scope = new Frame(frame);
          assign(scope, item);
          return truthy(filter(scope));
        });
      }
      const recurse = (inner: Value, depth: number) => capture((_, output) => run(frame, output, inner, depth), frame);
      const loop = new Loop(items, depth0, recursive ? recurse : undefined);
      let completed = false;
      for (const item of items) {
        frame.countIteration();
        loop.index0++;
        const scope = new Frame(frame);
        scope.set("loop", loop);
        assign(scope, item);
        const signal = body(scope, out);
        completed ||= signal === undefined;
        if (signal === "break") break;
      }
      // Jinja2 takes the else too where no iteration came to its end, for a break or continue.
      return !completed ? otherwise?.(new Frame(frame), out) : undefined;
    };
    return (frame, out) => run(frame, out, iterable(frame), 0);
  }

  private set(): Execute {
    const assign = this.target(true);
    if (this.operator("=")) {
      const value = this.tuple();
      return (frame) => void assign(frame, value(frame));
    }
    const filter = this.filters();
    const body = this.isolated(() => this.body("endset"));
    return (frame) => void assign(frame, filter(new Frame(frame), capture(body, new Frame(frame))));
  }

  private with(): Execute {
    const pairs: [Assign, Evaluate][] = [];
    while (!this.is("block_end")) {
      if (pairs.length > 0) this.expect("operator", ",");
      const assign = this.target();
      this.expect("operator", "=");
      pairs.push([assign, this.expression()]);
    }
    const body = this.body("endwith");
    return (frame, out) => {
      const scope = new Frame(frame);
      for (const [assign, value] of pairs) assign(scope, value(frame));
      return body(scope, out);
    };
  }

  private macro(): Execute {
    const { value: name } = this.expect("name");
    this.store(name);
    const make = this.macroBody(name, () => this.parameters(), "endmacro");
    return (frame) => void frame.set(name, make(frame));
  }

  private callBlock(): Execute {
    let calling: ((more: [string, Value][]) => Evaluate) | undefined;
    const make = this.macroBody(
      undefined,
      () => {
        const parameters = this.is("operator", "(") ? this.parameters() : [];
        this.lastCall = undefined;
        this.expression();
        calling = this.lastCall;
        return parameters;
      },
      "endcall",
    );
    if (!calling) return this.failHere("expected call");
    const called = calling as (more: [string, Value][]) => Evaluate;
    return (frame, out) => void out.write(str(called([["caller", make(frame)]])(frame)));
  }

  private macroBody(name: string | undefined, head: () => Parameter[], end: string): (closure: Frame) => Macro {
    const parameters = head();
    const names = { loaded: new Set<string>(), stored: new Set<string>() };
    this.names.push(names);
    const body = this.isolated(() => this.body(end));
    this.names.pop();
    const uses = new Set(["caller", "kwargs", "varargs"].filter((one) => names.loaded.has(one)));
    const caller = parameters.find((parameter) => parameter.name === "caller");
    if (caller && !caller.fallback && uses.has("caller"))
      this.failHere('the argument "caller" must be omitted or be given a default');
    return (closure) => new Macro(name, parameters, uses, closure, (frame) => capture(body, frame));
  }

  private parameters(): Parameter[] {
    const parameters: Parameter[] = [];
    this.expect("operator", "(");
    while (!this.operator(")")) {
      if (parameters.length > 0) this.expect("operator", ",");
      const token = this.expect("name");
      if (parameters.some(({ name }) => name === token.value))
        this.failHere(`duplicate argument '${token.value}'`, token);
      const fallback = this.operator("=") ? this.expression() : undefined;
      if (!fallback && parameters.at(-1)?.fallback)
        this.failHere("non-default argument follows default argument", token);
      parameters.push({ name: this.assignable(token), fallback });
    }
    return parameters;
  }

  private filterBlock(): Execute {
    const filter = this.filters(true);
    const body = this.isolated(() => this.body("endfilter"));
    return (frame, out) => {
      const scope = new Frame(frame);
      out.write(str(filter(scope, capture(body, scope))));
      return undefined;
    };
  }

  /** `first | second(x)` of a text that is made later; `first` without a "|" where it `starts` there. */
  private filters(starts = false): (frame: Frame, text: string) => Value {
    let text = "";
    let value: Evaluate = () => text;
    if (starts) value = this.filter(value);
    while (this.operator("|")) value = this.filter(value);
    return (frame, given) => {
      // What is nested has put its own text here before.
      text = given;
      return value(frame);
    };
  }

  private print(): Execute {
    const values: Evaluate[] = [];
    while (!this.is("block_end")) {
      if (values.length > 0) this.expect("operator", ",");
      values.push(this.expression());
    }
    return (frame, out) => {
      for (const value of values) out.write(str(value(frame)));
      return undefined;
    };
  }

  /** {% generation %}: in transformers a call block, so it has a scope of its own. */
  private generation(): Execute {
    const body = this.isolated(() => this.body("endgeneration"));
    return (frame, out) => void out.write(capture(body, new Frame(frame)));
  }

  /** What a break cannot leave. */
  private isolated<T>(parse: () => T): T {
    const { loops } = this;
    this.loops = 0;
    const result = parse();
    this.loops = loops;
    return result;
  }

  private target(namespace = false): Assign {
    const items: Assign[] = [];
    let comma = false;
    while (!this.isTupleEnd()) {
      items.push(this.targetItem(namespace));
      if (!this.operator(",")) break;
      comma = true;
    }
    const [first] = items;
    if (!comma && first) return first;
    if (!comma) this.failHere("expected a name to assign to");
    return (frame, value) => unpack(items, frame, value);
  }

  private targetItem(namespace: boolean): Assign {
    if (this.operator("(")) {
      const inner = this.target();
      this.expect("operator", ")");
      return inner;
    }
    const token = this.expect("name");
    const name = this.assignable(token);
    if (namespace && this.operator(".")) {
      const { value: attribute } = this.expect("name");
      for (const names of this.names) if (!names.stored.has(name)) names.loaded.add(name);
      return (frame, value) => {
        const namespace = frame.get(name);
        if (!(namespace instanceof Namespace)) return fail("cannot assign attribute on non-namespace object");
        namespace.values.set(attribute, value);
      };
    }
    if (this.fors > 0 && name === "loop") this.failHere("can't assign to the special variable 'loop'", token);
    this.store(name);
    return (frame, value) => frame.set(name, value);
  }

  private assignable(token: Token): string {
    if (/^([tT]rue|[fF]alse|[nN]one)$/.test(token.value)) this.failHere(`can't assign to '${token.value}'`, token);
    return token.value;
  }

  private store(name: string): void {
    for (const { loaded, stored } of this.names) if (!loaded.has(name)) stored.add(name);
  }
}

function sequence(parts: Execute[]): Execute {
  return (frame, out) => {
    for (const part of parts) {
      const signal = part(frame, out);
      if (signal) return signal;
    }
    return undefined;
  };
}

function unpack(targets: Assign[], frame: Frame, value: Value): void {
  const items = [...iterate(value)];
  if (items.length !== targets.length)
    fail(`cannot unpack ${items.length} items of a ${typeName(value)} into ${targets.length} names`);
  for (const [index, assign] of targets.entries()) assign(frame, items[index] as Value);
}
