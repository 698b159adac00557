// The name of a request, in headers and logs.
import { randomUUID } from "node:crypto";

/** What the client calls it, where that is short and plain; else a new one. */
export function idOf(header: string | string[] | undefined): string {
  return typeof header === "string" && /^[\w.:+/=-]{1,128}$/.test(header)
    ? header
    : `req_${randomUUID().replaceAll("-", "")}`;
}
