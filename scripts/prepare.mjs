// What npm runs in a clone, and nobody else: dist/ from the TypeScript sources, and the addon for this machine.
// SDAR_SKIP_BUILD=1 leaves the addon out. Where nvcc and a card are, or nvcc and SDAR_CUDA_ARCHITECTURES, the CUDA library is
// built too; that it fails does not fail the install.
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { buildAddon } from "./build.mjs";
import { BuildError, orExit, root } from "./cmake.mjs";
import { copyPage } from "./copy-page.mjs";
import { buildCudaLibrary, canBuildCuda, cardArchitectures, namedArchitectures } from "./cuda-library.mjs";

/** Without dev dependencies the compiler is fetched for this one call; types were checked by who changed them. */
function compile() {
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  const project = ["-p", "tsconfig.build.json"];
  if (existsSync(tsc)) return spawnSync(process.execPath, [tsc, ...project], { cwd: root, stdio: "inherit" }).status;
  if (existsSync(join(root, "dist", "index.js"))) return 0;
  const lock = createRequire(import.meta.url)("../package-lock.json");
  const version = lock.packages["node_modules/typescript"].version;
  console.log(`sdar-engine: dist/ is compiled with typescript@${version}, which npm exec fetches`);
  // Without the types of Node, of which the emitted code knows nothing.
  const plain = join(root, "build", "tsconfig.json");
  mkdirSync(join(root, "build"), { recursive: true });
  const compilerOptions = { types: [], noCheck: true };
  writeFileSync(plain, JSON.stringify({ extends: "../tsconfig.build.json", compilerOptions }));
  const args = ["exec", "--yes", `--package=typescript@${version}`, "--", "tsc", "-p", plain];
  return spawnSync("npm", args, { cwd: root, stdio: "inherit" }).status;
}

// npx makes a link to the clone before it first runs `npx sdar` there, and prepares it again.
if (process.env.npm_command === "exec" && existsSync(join(root, "dist", "cli", "main.js"))) process.exit();

if (compile() !== 0) process.exit(1);
chmodSync(join(root, "dist", "cli", "main.js"), 0o755);
copyPage();

if (process.env.SDAR_SKIP_BUILD) {
  console.log("sdar-engine: SDAR_SKIP_BUILD is set; the native addon is not built");
} else {
  await orExit(buildAddon());
  if (canBuildCuda() && (namedArchitectures() || cardArchitectures().length > 0)) {
    try {
      await buildCudaLibrary();
    } catch (error) {
      console.error(error instanceof BuildError ? error.message : error);
      console.error('sdar-engine: device "cuda" will not be available');
    }
  }
}
