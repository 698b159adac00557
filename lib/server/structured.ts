// Forms of answers as OpenAI and vLLM name them.
import { z } from "zod";
import type { Format } from "../types.js";
import { badField } from "./problem.js";

/** Forms, with the fields that asked for them. */
export type Formats = { format: Format; field: string }[];

const schema = z.union([z.record(z.string(), z.unknown()), z.boolean(), z.string()], {
  error: "give a JSON Schema",
});
const string = z.string();
const choices = z.array(z.string(), { error: "give a list of strings" });

export const responseFormat = z
  .union([
    z.object({ type: z.literal("text") }),
    z.object({ type: z.literal("json_object") }),
    z.object({
      type: z.literal("json_schema"),
      json_schema: z.object({
        name: string.nullish(),
        schema: schema.nullish(),
        strict: z.boolean().nullish(),
      }),
    }),
  ])
  .nullish();

/** vLLM's `structured_outputs`, and the fields of its older versions. */
export const structuredFields = {
  structured_outputs: z
    .object({
      json: schema.nullish(),
      regex: string.nullish(),
      choice: choices.nullish(),
      grammar: string.nullish(),
      json_object: z.boolean().nullish(),
      structural_tag: z.unknown().optional(),
    })
    .nullish()
    .describe("one of json, regex (JavaScript's), choice, grammar (GBNF), json_object"),
  guided_json: schema.nullish(),
  guided_regex: string.nullish(),
  guided_choice: choices.nullish(),
  guided_grammar: string.nullish(),
};
const structuredSchema = z.object(structuredFields);

type StructuredFields = z.infer<typeof structuredSchema>;

/** All that a body asks for. Throws ApiError. */
export function formatsOf(
  fields: StructuredFields & { response_format?: z.infer<typeof responseFormat> | undefined },
): Formats {
  const { response_format: asked, structured_outputs: outputs } = fields;
  if (outputs?.structural_tag !== undefined && outputs.structural_tag !== null)
    throw badField("structured_outputs.structural_tag", "structured_outputs.structural_tag is not supported");
  const formats: Formats = [];
  if (asked?.type === "json_object") formats.push({ format: { type: "json" }, field: "response_format" });
  if (asked?.type === "json_schema") {
    const field = "response_format.json_schema.schema";
    formats.push({ format: jsonSchema(asked.json_schema.schema ?? {}, field), field });
  }
  const { guided_json, guided_regex, guided_choice, guided_grammar } = fields;
  formats.push(...structured("structured_outputs.", outputs ?? {}));
  formats.push(
    ...structured("guided_", {
      json: guided_json,
      regex: guided_regex,
      choice: guided_choice,
      grammar: guided_grammar,
    }),
  );
  return formats;
}

function structured(
  prefix: string,
  { json, regex, choice, grammar, json_object }: NonNullable<StructuredFields["structured_outputs"]>,
): Formats {
  const formats: Formats = [];
  const add = (name: string, format: Format) => formats.push({ format, field: prefix + name });
  if (json !== undefined && json !== null) add("json", jsonSchema(json, `${prefix}json`));
  if (typeof regex === "string") add("regex", { type: "regex", pattern: regex });
  // How probable each is takes requests of their own, and nobody asks here.
  if (choice) add("choice", { type: "choice", choices: choice, probabilities: false });
  if (typeof grammar === "string") add("grammar", { type: "grammar", grammar });
  if (json_object) add("json_object", { type: "json" });
  return formats;
}

function jsonSchema(given: object | boolean | string, field: string): Format {
  if (typeof given !== "string") return { type: "json_schema", schema: given };
  try {
    const schema = JSON.parse(given) as unknown;
    if (typeof schema === "boolean" || (typeof schema === "object" && schema !== null && !Array.isArray(schema)))
      return { type: "json_schema", schema };
  } catch {}
  throw badField(field, `${field}: give a JSON Schema, as an object or as its JSON`);
}
