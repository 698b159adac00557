// GET /v1/models and /v1/models/{id}
import type { ServedModel } from "./models.js";

/** A model as OpenAI's API lists it, with vLLM's `max_model_len`. */
export function modelCard({ name, created, engine: { model } }: ServedModel): object {
  const { contextLength, decoding, device, weights, parameters, blockLength } = model;
  return {
    id: name,
    object: "model",
    created,
    owned_by: "sdar-engine",
    max_model_len: contextLength,
    sdar: { decoding, device, weights, parameters, ...(decoding === "block_diffusion" && { blockLength }) },
  };
}

export const modelList = (models: readonly ServedModel[]): object => ({
  object: "list",
  data: models.map(modelCard),
});
