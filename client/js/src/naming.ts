/** Which model a receipt has to name (SPEC 9.2.2). */

import { fromUtf8 } from "./bytes.js";
import type { Manifest } from "./keyset.js";
import type { ReceiptClaims } from "./receipt.js";

/** Return the model that the request named, if the manifest has it and nothing was refused, else the first. */
export function expectedModel(
  manifest: Pick<Manifest, "model" | "models">,
  claims: Pick<ReceiptClaims, "outcome">,
  requestBody: Uint8Array,
): string {
  if (manifest.models.length === 1 || claims.outcome === "refused") return manifest.model;
  let request: unknown;
  try {
    request = JSON.parse(fromUtf8(requestBody));
  } catch {
    return manifest.model;
  }
  const name: unknown = typeof request === "object" && request !== null && "model" in request ? request.model : undefined;
  return manifest.models.find(({ model }) => model === name)?.model ?? manifest.model;
}
