// What the commands of queues have in common.
import { InvalidArgumentError } from "commander";

export const defaultQueue = "sdar";
export const defaultRedis = (): string => process.env.REDIS_URL || "redis://127.0.0.1:6379";

export function whole(text: string): number {
  if (!/^-?\d+$/.test(text)) throw new InvalidArgumentError("It is not a whole number.");
  return Number(text);
}
