// One JSON object, read character by character: wrong at the first character that no object can have there.

/** What may come next. */
type Expected = "value" | "valueOrEnd" | "name" | "nameOrEnd" | "colon" | "more";

/** Deeper than arguments of any tool, and shallow enough for what recurses. */
const maxDepth = 512;
const literal = /^(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)$/;
const escapes = '"\\/bfnrt';
const spaces = " \n\r\t";

export class ObjectScanner {
  /** text of the values of its members, by name; of a name twice the last one, as JSON.parse has it */
  readonly members = new Map<string, string>();
  /** where its lists and objects end, the innermost last */
  readonly #ends: string[] = [];
  #expected: Expected = "value";
  /** within a string: 0 for a character, 1 after a backslash, 2 to 5 for digits of \u; -1 outside */
  #inString = -1;
  #literal = "";
  /** of a member: its name as JSON, and of its value what has come of it */
  #name = "";
  #value: string | undefined;

  /** Takes one UTF-16 unit; "whole" with the brace that ends the object, after which none may come. */
  take(unit: string): "more" | "whole" | "wrong" {
    if (this.#literal !== "" && /[\s,\]}]/.test(unit) && !this.#endLiteral()) return "wrong";
    if (this.#value !== undefined) this.#value += unit;
    if (this.#inString >= 0) return this.#string(unit) ? "more" : "wrong";
    if (this.#literal !== "") {
      this.#literal += unit;
      return "more";
    }
    if (spaces.includes(unit)) return "more";
    if (!this.#token(unit)) return "wrong";
    return this.#ends.length === 0 ? "whole" : "more";
  }

  #token(unit: string): boolean {
    const expected = this.#expected;
    if (unit === this.#ends.at(-1)) {
      if (expected === "value" || expected === "name" || expected === "colon") return false;
      this.#ends.pop();
      this.#ended();
      return true;
    }
    if (expected === "more") {
      this.#expected = this.#ends.at(-1) === "}" ? "name" : "value";
      return unit === ",";
    }
    if (expected === "colon") {
      this.#expected = "value";
      return unit === ":";
    }
    if (expected === "name" || expected === "nameOrEnd") {
      this.#expected = "name";
      if (this.#ends.length === 1) this.#name = unit;
      this.#inString = 0;
      return unit === '"';
    }
    return this.#beginValue(unit);
  }

  #beginValue(unit: string): boolean {
    if (this.#ends.length === 0) {
      this.#open("}");
      return unit === "{";
    }
    if (this.#ends.length === 1) this.#value = unit;
    if (unit === "{" || unit === "[") {
      this.#open(unit === "{" ? "}" : "]");
      return this.#ends.length <= maxDepth;
    }
    if (unit === '"') this.#inString = 0;
    else this.#literal = unit;
    return unit === '"' || /[-0-9tfn]/.test(unit);
  }

  #open(end: string): void {
    this.#ends.push(end);
    this.#expected = end === "}" ? "nameOrEnd" : "valueOrEnd";
  }

  #string(unit: string): boolean {
    if (this.#expected === "name" && this.#ends.length === 1) this.#name += unit;
    if (this.#inString === 0) {
      if (unit === '"') this.#endString();
      else if (unit === "\\") this.#inString = 1;
      return unit >= " ";
    }
    if (this.#inString === 1) {
      this.#inString = unit === "u" ? 2 : 0;
      return unit === "u" || escapes.includes(unit);
    }
    this.#inString = (this.#inString + 1) % 6;
    return /[0-9a-fA-F]/.test(unit);
  }

  #endString(): void {
    this.#inString = -1;
    if (this.#expected === "name") this.#expected = "colon";
    else this.#ended();
  }

  #endLiteral(): boolean {
    const text = this.#literal;
    this.#literal = "";
    this.#ended();
    return literal.test(text);
  }

  #ended(): void {
    this.#expected = "more";
    if (this.#ends.length !== 1 || this.#value === undefined) return;
    this.members.set(JSON.parse(this.#name), this.#value);
    this.#value = undefined;
  }
}
