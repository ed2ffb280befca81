/** The appraisal policy: what a relying party demands, in a closed and typed file without optional fields. */

import { parse, TomlError } from "smol-toml";

import type { Bytes } from "../bytes.js";
import { encode, type Value } from "../cbor.js";
import { CannotJudge, PolicyError } from "../errors.js";
import { sha256 } from "../hash.js";
import { PURPOSE_POLICY } from "../labels.js";
import type { Waived } from "../ledger.js";
import { hexOf, int, isTable, listOf, moment, oneOf, orWord, table, text, waivable, type Fault, type Reader } from "./schema.js";
import { snpPolicy, type SnpPolicy } from "./snp.js";

export type { SnpPolicy } from "./snp.js";

const MAX_POLICY_BYTES = 256 * 1024;
const PROFILES = ["sev-snp/kernel-hashes", "sev-snp/igvm"] as const;
/** Profiles of SPEC 5.7 that this package has no verifier for, and what it calls their evidence. */
const FOREIGN: Readonly<Record<string, string>> = {
  "tdx/direct": "tdx",
  "tdx/gcp": "tdx",
  "tdx/dstack": "tdx",
  "azure/sev-snp": "azure-sev-snp",
  "azure/tdx": "azure-tdx",
};

interface Content {
  id: string;
  serial: number;
  not_after: number;
  kind: "hardware" | "simulated";
  session: { suite: string; shape: "none" | "bucketed" };
  freshness: "nonce" | { epoch_max_age_s: number } | Waived;
  manifest: { digests: string[] };
  platform: { profile: (typeof PROFILES)[number]; snp: SnpPolicy };
  gpu: "none";
  simulated?: {
    amd_ark_sha256: string;
    intel_root_sha256: string;
    nvidia_device_root_spki_sha256: string;
    nvidia_rim_root_spki_sha256: string;
  };
}

/** A policy that was read. `text` is the file as it was, `digest` is of its content alone. */
export interface AppraisalPolicy extends Content {
  readonly text: string;
  readonly digest: Bytes;
  /** What the manifest must call the machine. */
  readonly platformName: string;
}

// "none" is a word, any other text must be a digest.
const simulatedRoot: Reader<string> = (value, field, faults) =>
  value === "none" ? value : hexOf(32)(value, field, faults);

const fields = {
  id: text(/^[a-z0-9][a-z0-9._-]{2,63}$/, "3 to 64 of a-z, 0-9, dot, underscore and hyphen"),
  serial: int(1, Number.MAX_SAFE_INTEGER),
  not_after: moment,
  kind: oneOf("hardware", "simulated"),
  session: table({ suite: oneOf("mlkem768-x25519/hkdf-sha256/aes-256-gcm"), shape: oneOf("none", "bucketed") }),
  freshness: waivable(orWord("nonce", table({ epoch_max_age_s: int(1, 86_400) }))),
  manifest: table({ digests: listOf(hexOf(32)) }),
  platform: table({ profile: oneOf(...PROFILES), snp: snpPolicy }),
  gpu: oneOf("none"),
};
const simulated = table({
  amd_ark_sha256: simulatedRoot,
  intel_root_sha256: simulatedRoot,
  nvidia_device_root_spki_sha256: simulatedRoot,
  nvidia_rim_root_spki_sha256: simulatedRoot,
});

/**
 * Read a policy file; `file` is its name in messages. The text comes from the application, never from a peer.
 *
 * Throws PolicyError naming file, field and remedy, and CannotJudge for a policy that demands evidence of a kind that
 * this package cannot judge. Does not check: serial and not-after, which `appraise` judges.
 */
export function loadPolicy(source: string, file = "policy"): AppraisalPolicy {
  if (source.length > MAX_POLICY_BYTES) {
    throw new PolicyError(file, "file", `is larger than ${MAX_POLICY_BYTES} bytes; is it the right file?`);
  }
  let tree: Record<string, unknown>;
  try {
    tree = parse(source, { integersAsBigInt: true });
  } catch (fault) {
    if (!(fault instanceof TomlError)) throw new PolicyError(file, "file", "is not TOML");
    throw new PolicyError(file, "file", `is not TOML: ${fault.message.split("\n")[0]}`);
  }
  refuseForeign(tree);
  const faults: Fault[] = [];
  const reader = tree.kind === "simulated" ? table({ ...fields, simulated }) : table(fields);
  const content = reader(tree, "", faults) as unknown as Content;
  if (faults.length) {
    const [[field, remedy], ...more] = faults as [Fault, ...Fault[]];
    throw new PolicyError(file, field, remedy + more.map(([name, each]) => `; ${name}: ${each}`).join(""));
  }
  const digest = sha256(encode({ purpose: PURPOSE_POLICY, policy: content as unknown as Value }));
  const platformName = content.kind === "simulated" ? "simulated-sev-snp" : "sev-snp";
  return { ...content, text: source, digest, platformName };
}

function refuseForeign(tree: Record<string, unknown>): void {
  const profile = isTable(tree.platform) ? tree.platform.profile : undefined;
  const foreign = typeof profile === "string" && Object.hasOwn(FOREIGN, profile) ? FOREIGN[profile] : undefined;
  if (foreign !== undefined) throw new CannotJudge(foreign);
  if (isTable(tree.gpu)) throw new CannotJudge("gpu");
}
