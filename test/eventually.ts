import { setTimeout as sleep } from "node:timers/promises";
import type { Test } from "tap";

/** Passes as soon as what `read` gives matches, within 5 seconds: for counters that another thread writes. */
export async function eventually(t: Test, read: () => unknown, pattern: object | number): Promise<void> {
  const contains = (value: unknown, wanted: unknown): boolean =>
    typeof wanted === "object" && wanted !== null
      ? Object.entries(wanted).every(([key, part]) => contains((value as Record<string, unknown>)?.[key], part))
      : value === wanted;
  for (let i = 0; i < 500 && !contains(read(), pattern); i++) await sleep(10);
  t.match(read(), pattern);
}
