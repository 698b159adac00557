// sdar-engine/server: OpenAI's API over HTTP, as a fastify plugin and as a server of its own.
export { createServer, type SdarServer, type ServerOptions } from "./app.js";
export { type ApiKey, parseApiKeys } from "./auth.js";
export type { ModelToLoad, ServedModels } from "./models.js";
export { type SdarPluginOptions, type ServerHandle, sdarPlugin } from "./plugin.js";
