// Packages that only the server needs.
import { optionalPackage } from "../optional-package.js";

export const serverPackage = <T>(name: string, load: () => Promise<T>): Promise<T> =>
  optionalPackage(
    load,
    `the server needs the package ${name}, which is not installed: npm install fastify prom-client`,
  );
