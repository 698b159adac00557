// A stand-in of the Hugging Face hub, and of the host that has its large files.
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";

export const commit = "0123456789abcdef0123456789abcdef01234567";

type Handler = (request: IncomingMessage, response: ServerResponse) => boolean;

export class Hub {
  readonly files: Map<string, Buffer>;
  /** as the list has it, where it lies */
  readonly listed: Record<string, { size?: number; oid?: string }> = {};
  /** what it was asked for, such as "hub GET /api/…", with the range and whether there was a token */
  readonly asked: { host: "hub" | "store"; path: string; range: string | undefined; token: string | undefined }[] = [];
  /** deals with a request before the hub does, if it returns true */
  disturb: Handler = () => false;
  /** the same for the other host */
  disturbStore: Handler = () => false;
  readonly #servers: Server[] = [];
  endpoint = "";
  #store = "";

  /** Small files of a folder, and its tensors as files in LFS. */
  constructor(folder: string) {
    this.files = new Map(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]));
  }

  async start(): Promise<this> {
    this.#store = await this.#listen("store", (request, response) => {
      if (!this.disturbStore(request, response)) this.#send(request, response, String(request.url).slice(1));
    });
    this.endpoint = await this.#listen("hub", (request, response) => {
      if (!this.disturb(request, response)) this.#answer(request, response);
    });
    return this;
  }

  stop(): void {
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
  }

  /** Of the large file. */
  ranges(): (string | undefined)[] {
    return this.asked.filter(({ host }) => host === "store").map(({ range }) => range);
  }

  async #listen(host: "hub" | "store", handle: (request: IncomingMessage, response: ServerResponse) => void) {
    const server = createServer((request, response) => {
      const { range, authorization: token } = request.headers;
      this.asked.push({ host, path: String(request.url), range, token });
      handle(request, response);
    });
    this.#servers.push(server);
    await once(server.listen(0, "127.0.0.1"), "listening");
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = String(request.url).split("?")[0] as string;
    const json = (value: unknown) => response.setHeader("content-type", "application/json").end(JSON.stringify(value));
    if (path === "/api/models/org/name/revision/main") json({ _id: "1", id: "org/name", sha: commit });
    else if (path === `/api/models/org/name/tree/${commit}`)
      json([...this.files.keys()].map((name) => this.#entry(name)));
    else if (path.startsWith(`/org/name/resolve/${commit}/`)) {
      const name = path.slice(path.lastIndexOf("/") + 1);
      if (!name.endsWith(".safetensors")) this.#send(request, response, name);
      else response.writeHead(302, { location: `${this.#store}/${name}` }).end();
    } else response.writeHead(404).end();
  }

  #entry(name: string) {
    const bytes = this.files.get(name) as Buffer;
    const lfs = name.endsWith(".safetensors");
    const hash = lfs ? createHash("sha256") : createHash("sha1").update(`blob ${bytes.length}\0`);
    const { size = bytes.length, oid = hash.update(bytes).digest("hex") } = this.listed[name] ?? {};
    return {
      type: "file",
      path: name,
      size,
      oid: lfs ? "0".repeat(40) : oid,
      ...(lfs && { lfs: { oid, size, pointerSize: 130 } }),
    };
  }

  #send({ headers }: IncomingMessage, response: ServerResponse, name: string): void {
    const bytes = this.files.get(name);
    if (!bytes) return void response.writeHead(404).end();
    const from = Number(/^bytes=(\d+)-$/.exec(headers.range ?? "")?.[1] ?? 0);
    if (from === 0) return void response.writeHead(200, { "content-length": bytes.length }).end(bytes);
    const range = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
    response
      .writeHead(206, { "content-range": range, "content-length": bytes.length - from })
      .end(bytes.subarray(from));
  }
}
