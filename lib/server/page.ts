// The playground: static files for a browser that ask the endpoints beside them.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { packageRoot } from "../checkpoint.js";

/** Refuses other methods of a path. */
type Only = (url: string, ...methods: ("GET" | "HEAD")[]) => void;

const types: Readonly<Record<string, string>> = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Nothing but the files beside it, and no text that becomes markup. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

const headers = {
  "content-security-policy": policy,
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  // After an update of the server, none of the old page.
  "cache-control": "no-cache",
};

/** In a clone the sources, which are served as they are; else what the build has copied beside this module. */
function folderOfPage(): string {
  const sources = join(packageRoot, "lib", "server", "page");
  return existsSync(sources) ? sources : fileURLToPath(new URL("page/", import.meta.url));
}

/** Serves the page at `/` and its files below `/page/`. */
export function playground(app: FastifyInstance, only: Only): void {
  const folder = folderOfPage();
  for (const name of readdirSync(folder)) {
    const type = types[extname(name)];
    if (type === undefined) continue;
    const content = readFileSync(join(folder, name));
    const etag = `"${createHash("sha256").update(content).digest("base64url").slice(0, 27)}"`;
    const index = name === "index.html";
    const url = index ? "/" : `/page/${name}`;
    app.get(url, async (request: FastifyRequest, reply: FastifyReply) => {
      // Its files are named from where it is, so that any prefix will do.
      const [path = ""] = request.url.split("?");
      if (index && !path.endsWith("/")) return reply.redirect(`${path.slice(path.lastIndexOf("/") + 1)}/`, 308);
      reply.headers({ ...headers, etag });
      if (request.headers["if-none-match"] === etag) return reply.code(304).send();
      return reply.type(type).send(content);
    });
    only(url, "GET", "HEAD");
  }
}
