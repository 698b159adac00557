// What the prebuilt addons need of a system: glibc of 2.28 at most (that of Node itself), no libstdc++ beside the one in them,
// and libraries that every process of Node has. Prints what is wrong, or one line for each.
//   node scripts/check-prebuilds.mjs [file …]
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { isMain, root } from "./cmake.mjs";

const newest = [2, 28];
const libraries = /^(libc|libm|libdl|libpthread|libgcc_s)\.so\.\d+$|^ld-linux-(x86-64|aarch64)\.so\.\d$/;

function readelf(...args) {
  const { status, stdout, stderr } = spawnSync("readelf", ["--wide", ...args], {
    encoding: "utf8",
    maxBuffer: 2 ** 28,
  });
  if (status !== 0) throw new Error(`readelf: ${stderr}`);
  return stdout;
}

const isNewer = (version) => {
  const [major, minor = 0] = version.split(".").map(Number);
  return major > newest[0] || (major === newest[0] && minor > newest[1]);
};

/** What is wrong with a file, in lines, and the newest glibc that it asks for. */
function inspect(file) {
  const symbols = [...readelf("--dyn-syms", file).matchAll(/ UND (\S+?)@+(\w+?)_([\d.]+)/g)];
  const wrong = symbols.flatMap(([, name, library, version]) => {
    if (library === "GLIBC" && isNewer(version)) return [`${name} is of glibc ${version}`];
    return library === "GLIBC" || library === "GCC" ? [] : [`${name} is of ${library}_${version}`];
  });
  for (const [, needed] of readelf("--dynamic", file).matchAll(/\(NEEDED\).*\[(.*)\]/g)) {
    if (!libraries.test(needed)) wrong.push(`it needs ${needed}`);
  }
  const versions = symbols.filter(([, , library]) => library === "GLIBC").map(([, , , version]) => version);
  const order = (a, b) => a.localeCompare(b, "en", { numeric: true });
  return { wrong, glibc: versions.sort(order).at(-1) };
}

const prebuilt = () => {
  const folder = join(root, "prebuilds");
  const names = existsSync(folder) ? readdirSync(folder) : [];
  return names.map((name) => join(folder, name, "sdar-engine.node")).filter((file) => existsSync(file));
};

/** Returns how much is wrong; with no prebuilt addon nothing is. */
export function checkPrebuilds(files = prebuilt()) {
  let count = 0;
  for (const file of files) {
    const { wrong, glibc } = inspect(file);
    for (const what of wrong) console.log(`${file}: ${what}`);
    if (wrong.length === 0) console.log(`${file}: ${statSync(file).size} bytes, glibc ${glibc} or newer`);
    count += wrong.length;
  }
  return count;
}

if (isMain(import.meta.url)) {
  const files = process.argv.slice(2);
  process.exitCode = checkPrebuilds(files.length > 0 ? files : undefined) > 0 ? 1 : 0;
}
