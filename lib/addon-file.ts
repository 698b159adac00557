// Where the native addon is. Each place is written out, for tools that copy or bundle what a program needs look for that.
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { packageRoot } from "./checkpoint.js";

const require = createRequire(import.meta.url);

const places: Record<string, () => string> = {
  built: () => require.resolve("../build/Release/sdar_node.node"),
  "linux-x64": () => require.resolve("../prebuilds/linux-x64/sdar-engine.node"),
  "linux-arm64": () => require.resolve("../prebuilds/linux-arm64/sdar-engine.node"),
};

/** Such as linux-x64, or linux-x64-musl. */
export function platformName(): string {
  const { platform, arch } = process;
  return `${platform}-${arch}${platform === "linux" && isMusl() ? "-musl" : ""}`;
}

function isMusl(): boolean {
  const report = process.report as typeof process.report | undefined;
  // Bun and Deno have none that says it.
  if (typeof report?.getReport !== "function" || process.versions.bun || process.versions.deno) return false;
  const { excludeNetwork } = report as { excludeNetwork?: boolean };
  Object.assign(report, { excludeNetwork: true });
  const { header } = report.getReport() as { header?: { glibcVersionRuntime?: string } };
  Object.assign(report, { excludeNetwork });
  return header !== undefined && header.glibcVersionRuntime === undefined;
}

/** The addon built from source, else the prebuilt one of this platform. Throws when there is neither. */
export function findAddon(root = packageRoot): string {
  for (const [name, relative] of [
    ["built", join("build", "Release", "sdar_node.node")],
    [
      `${process.platform}-${process.arch}`,
      join("prebuilds", `${process.platform}-${process.arch}`, "sdar-engine.node"),
    ],
  ] as const) {
    const file = join(root, relative);
    if (!existsSync(file)) continue;
    return root === packageRoot ? (places[name]?.() ?? file) : file;
  }
  throw new Error(`no addon in ${root}`);
}
