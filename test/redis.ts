// A Redis of Debian's redis-server, on a Unix socket in a folder of its own, that keeps what it was told.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Test } from "tap";

/** Why there are no tests with Redis here; false where there are. */
export function withoutRedis(): string | false {
  if (spawnSync("redis-server", ["--version"]).error)
    return "redis-server is not installed (apt-get install redis-server)";
  try {
    createRequire(import.meta.url).resolve("ioredis");
    return false;
  } catch {
    return "ioredis, the Redis client of bullmq, is not installed (npm install ioredis)";
  }
}

export class TestRedis {
  readonly folder = mkdtempSync(join(tmpdir(), "sdar-redis-")); // a socket's path is short
  readonly socket = join(this.folder, "redis.sock");
  #process: ChildProcess | undefined;

  static async start(t: Test): Promise<TestRedis> {
    const redis = new TestRedis();
    t.teardown(async () => {
      await redis.kill();
      rmSync(redis.folder, { recursive: true, force: true });
    });
    await redis.start();
    return redis;
  }

  async start(): Promise<void> {
    const storage = ["--dir", this.folder, "--appendonly", "yes", "--save", ""];
    const args = ["--port", "0", "--unixsocket", this.socket, ...storage];
    this.#process = spawn("redis-server", args, { stdio: "ignore" });
    while (!(await this.#answers())) await sleep(20);
  }

  async kill(): Promise<void> {
    const child = this.#process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const closed = once(child, "close");
    child.kill("SIGKILL");
    await closed;
  }

  /** Whether it has read its file and takes commands. */
  #answers(): Promise<boolean> {
    if (!existsSync(this.socket)) return Promise.resolve(false);
    return new Promise((resolve) => {
      const client = connect(this.socket, () => client.write("PING\r\n"));
      client.once("data", (data) => {
        client.destroy();
        resolve(data.toString().startsWith("+PONG"));
      });
      client.once("error", () => resolve(false));
    });
  }
}
