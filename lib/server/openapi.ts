// GET /openapi.json: what bodies may have, as the schemas say that read them.
import { z } from "zod";
import { packageVersion } from "./operations.js";
import type { ErrorShape } from "./protocol.js";

/** An endpoint that takes a body. */
export interface Described {
  path: string;
  summary: string;
  schema: z.ZodType;
  /** by default OpenAI's */
  errors?: ErrorShape;
}

const json = (schema: object) => ({ content: { "application/json": { schema } } });

const error = {
  type: "object",
  properties: {
    error: {
      type: "object",
      properties: {
        message: { type: "string" },
        type: { type: "string" },
        param: { type: ["string", "null"] },
        code: { type: ["string", "null"] },
      },
      required: ["message", "type", "param", "code"],
    },
  },
  required: ["error"],
};

const gets: Record<string, string> = {
  "/v1/models": "The models that can be used",
  "/v1/models/{model}": "One of them",
  "/health": "Whether the server lives",
  "/ready": "Whether it takes requests: all models are loaded, and it does not shut down",
  "/version": "Its version",
  "/metrics": "What it counts, for Prometheus",
};

const posted = ({ path, summary, schema, errors }: Described) => ({
  post: {
    summary,
    operationId: path.slice(1).replaceAll("/", "_"),
    security: [{}, { bearer: [] }],
    requestBody: { required: true, ...json(bodyOf(schema)) },
    responses: {
      200: { description: "The answer; with stream, server-sent events", ...json({ type: "object" }) },
      default: { description: "What went wrong", ...json(errors?.schema ?? { $ref: "#/components/schemas/Error" }) },
    },
  },
});

const got = (path: string, summary: string) => ({
  get: {
    summary,
    operationId: path.slice(1).replaceAll(/[/{}]+/g, "_"),
    ...(path.includes("{model}") && {
      parameters: [{ name: "model", in: "path", required: true, schema: { type: "string" } }],
    }),
    responses: { 200: { description: "OK" }, default: { description: "What went wrong" } },
  },
});

/** Fields that are checked by code have no form of their own. */
function bodyOf(schema: z.ZodType): object {
  const { $schema, ...rest } = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
  return rest;
}

export function openapi(described: readonly Described[]): object {
  return {
    openapi: "3.1.0",
    info: { title: "sdar-engine", version: packageVersion() },
    paths: {
      ...Object.fromEntries(described.map((each) => [each.path, posted(each)])),
      ...Object.fromEntries(Object.entries(gets).map(([path, summary]) => [path, got(path, summary)])),
    },
    components: {
      schemas: { Error: error },
      securitySchemes: { bearer: { type: "http", scheme: "bearer" } },
    },
  };
}
