// A place in a template's tokens, from which the parser goes on.
import type { Token, TokenType } from "./lexer.js";
import { fail } from "./values.js";

export class Cursor {
  readonly tokens: Token[];
  protected at = 0;
  constructor(tokens: Token[]) {
    this.tokens = tokens;
  }

  protected get token(): Token {
    return this.tokens[this.at] as Token;
  }

  protected failHere(message: string, token = this.token): never {
    return fail(`line ${token.line}: ${message}`);
  }

  protected is(type: TokenType, ...values: string[]): boolean {
    const { token } = this;
    return token.type === type && (values.length === 0 || values.includes(token.value));
  }

  /** Takes the token when it is this one. */
  protected skip(type: TokenType, ...values: string[]): boolean {
    const found = this.is(type, ...values);
    if (found) this.at++;
    return found;
  }

  protected expect(type: TokenType, ...values: string[]): Token {
    const { token } = this;
    if (!this.skip(type, ...values)) {
      this.failHere(
        `expected ${values.map((value) => `'${value}'`).join(" or ") || type}, got '${token.value || token.type}'`,
      );
    }
    return token;
  }

  protected operator(...values: string[]): string | undefined {
    const { token } = this;
    return this.skip("operator", ...values) ? token.value : undefined;
  }

  protected isTupleEnd(endName?: string): boolean {
    return (
      this.is("variable_end") ||
      this.is("block_end") ||
      this.is("operator", ")") ||
      (endName !== undefined && this.is("name", endName))
    );
  }

  /** With commas between, and perhaps one behind the last. */
  protected separated<T>(end: string, parse: () => T): T[] {
    const items: T[] = [];
    while (!this.operator(end)) {
      if (items.length > 0) {
        this.expect("operator", ",");
        if (this.operator(end)) break;
      }
      items.push(parse());
    }
    return items;
  }

  protected dottedName(): string {
    let name = this.expect("name").value;
    while (this.operator(".")) name += `.${this.expect("name").value}`;
    return name;
  }
}
