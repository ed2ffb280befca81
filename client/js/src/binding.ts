/** From the report to the keyset: statement, freshness, keyset, manifest, and what must stand beside them. */

import { equal, hex, type Bytes } from "./bytes.js";
import { ProtocolError } from "./errors.js";
import type { EvidenceBundle } from "./evidence.js";
import { suiteNamed } from "./hpke.js";
import { offers, parseKeyConfigs } from "./keyconfig.js";
import { parseKeyset, parseManifest, type Keyset, type Manifest } from "./keyset.js";
import { DATE_TOLERANCE_S } from "./labels.js";
import type { Ledger } from "./ledger.js";
import type { AppraisalPolicy } from "./policy/policy.js";
import { nonceRoot, parseStatement, type ReportDataStatement } from "./statement.js";

export const BINDING_CHECKS = [
  "cpu_kind", "statement_format", "report_data", "statement_expired", "nonce", "keyset_format", "keyset_digest",
  "keyset_validity", "keyset_kind", "manifest_format", "manifest_digest", "manifest", "platform", "suite", "shape",
  "gpu_evidence", "event_logs",
] as const; // prettier-ignore
export type BindingCheck = (typeof BINDING_CHECKS)[number];

/** Public values that nobody could foresee, by hex, each with the time at which it was published. */
export type Epochs = ReadonlyMap<string, number>;

/** The statements as parsed, each absent if its bytes are not what they should be; when the epoch is too old. */
export interface Binding {
  statement: ReportDataStatement | undefined;
  keyset: Keyset | undefined;
  manifest: Manifest | undefined;
  notAfterUnixS: number | undefined;
}

export interface BindingInput {
  evidence: EvidenceBundle;
  /** What the hardware signed; undefined unless its signatures hold. */
  bound: Bytes | undefined;
  policy: AppraisalPolicy;
  nowUnixS: number;
  nonce: Uint8Array | undefined;
  epochs: Epochs;
}

type Judge = Ledger<BindingCheck>;

/** Judge everything between what the hardware signed and the keyset. Does not check the hardware's evidence itself. */
export function checkBinding(ledger: Judge, input: BindingInput): Binding {
  const { evidence, policy } = input;
  const { kind, hasMore } = evidence.cpu;
  const { profile } = policy.platform;
  ledger.expect(
    "cpu_kind",
    kind === "sev-snp" && !hasMore,
    `${kind}, as the profile ${profile} demands`,
    `${kind}${hasMore ? " and parts of another kind" : ""}, the profile ${profile} demands sev-snp`,
  );
  const statement = checkStatement(ledger, input);
  const notAfterUnixS = statement && checkFreshness(ledger, input, statement);
  const keyset = checkKeyset(ledger, input, statement);
  const manifest = checkManifest(ledger, input, keyset);
  if (statement !== undefined) {
    ledger.expect(
      "gpu_evidence",
      evidence.gpuCount === 0 && statement.gpuEvidenceDigest === undefined,
      "the policy demands no GPU, and there is no evidence of one",
      "there is GPU evidence, and the policy demands none",
    );
  }
  const logs = evidence.eventLogs.join(", ") || "none";
  const known = `the profile ${profile} knows none`;
  ledger.expect("event_logs", evidence.eventLogs.length === 0, known, `${known}, the evidence has ${logs}`);
  return { statement, keyset, manifest, notAfterUnixS };
}

function parsed<T>(ledger: Judge, id: BindingCheck, name: string, parse: () => T): T | undefined {
  try {
    const value = parse();
    ledger.expect(id, true, name, "");
    return value;
  } catch (fault) {
    if (!(fault instanceof ProtocolError)) throw fault;
    ledger.fail(id, fault.message);
    return undefined;
  }
}

function checkStatement(ledger: Judge, { evidence, bound, nowUnixS }: BindingInput): ReportDataStatement | undefined {
  const statement = parsed(ledger, "statement_format", "a report-data statement", () => parseStatement(evidence.statement));
  if (statement === undefined) return undefined;
  if (bound !== undefined) {
    ledger.expect(
      "report_data",
      equal(bound, statement.reportData),
      "the hardware signed SHA-512 of the statement",
      "the hardware signed something else than this statement",
    );
  }
  ledger.expect(
    "statement_expired",
    nowUnixS < statement.notAfterUnixS,
    `good for ${statement.notAfterUnixS - nowUnixS} s more`,
    "the statement has expired; fetch fresh evidence, and compare clocks",
  );
  return statement;
}

/** Return when what answered ceases to be fresh, undefined if it does not. */
function checkFreshness(ledger: Judge, input: BindingInput, statement: ReportDataStatement): number | undefined {
  const { evidence, policy, nowUnixS, nonce, epochs } = input;
  const { freshness } = policy;
  if (freshness === "nonce") {
    ledger.expect(
      "nonce",
      nonce !== undefined && statement.nonce !== undefined && equal(nonceRoot(evidence.noncePath, nonce), statement.nonce),
      "the statement answers our nonce",
      nonce === undefined
        ? "no nonce was asked for, and the policy demands one"
        : "the statement does not answer our nonce",
    );
    return undefined;
  }
  if ("waived" in freshness) {
    ledger.waive("nonce", freshness.waived);
    return undefined;
  }
  const published = statement.epoch && epochs.get(hex(statement.epoch));
  const [age, most] = [published === undefined ? undefined : nowUnixS - published, freshness.epoch_max_age_s];
  ledger.expect(
    "nonce",
    age !== undefined && age >= 0 && age <= most,
    `the statement answers an epoch of ${age} s ago`,
    age === undefined
      ? "the statement answers no epoch that the caller knows"
      : `the epoch is of ${age} s ago, at most ${most} s are accepted`,
  );
  return published === undefined ? undefined : published + most;
}

function checkKeyset(
  ledger: Judge,
  { evidence, policy, nowUnixS }: BindingInput,
  statement: ReportDataStatement | undefined,
): Keyset | undefined {
  const keyset = parsed(ledger, "keyset_format", "a keyset statement", () => parseKeyset(evidence.keyset));
  if (keyset === undefined) return undefined;
  if (statement !== undefined) {
    ledger.expect(
      "keyset_digest",
      equal(keyset.digest, statement.keysetDigest),
      `the statement names this keyset, ${hex(keyset.digest).slice(0, 16)}…`,
      "the statement names another keyset",
    );
  }
  ledger.expect(
    "keyset_validity",
    keyset.notBeforeUnixS - DATE_TOLERANCE_S <= nowUnixS && nowUnixS < keyset.notAfterUnixS,
    `good for ${keyset.notAfterUnixS - nowUnixS} s more`,
    "the keyset is not valid now; fetch fresh evidence, and compare clocks",
  );
  ledger.expect(
    "keyset_kind",
    keyset.simulated === (policy.kind === "simulated"),
    `the keyset says it is of ${policy.kind} kind`,
    `the keyset says it is of ${keyset.simulated ? "simulated" : "hardware"} kind, the policy is not`,
  );
  const { suite } = policy.session;
  const refusal = `${suite} is not offered, and nothing else will do`;
  ledger.expect("suite", isOffered(keyset, suite), `${suite} is offered`, refusal);
  return keyset;
}

function isOffered(keyset: Keyset, suite: string): boolean {
  try {
    return parseKeyConfigs(keyset.ohttpKeys).some((config) => offers(config, suiteNamed(suite)));
  } catch (fault) {
    if (fault instanceof ProtocolError) return false;
    throw fault;
  }
}

function checkManifest(
  ledger: Judge,
  { evidence, policy }: BindingInput,
  keyset: Keyset | undefined,
): Manifest | undefined {
  const manifest = parsed(ledger, "manifest_format", "a manifest", () => parseManifest(evidence.manifest));
  if (manifest === undefined) return undefined;
  if (keyset !== undefined) {
    ledger.expect(
      "manifest_digest",
      equal(manifest.digest, keyset.manifestDigest),
      "the keyset names this manifest",
      "the keyset names another manifest",
    );
  }
  const digest = hex(manifest.digest);
  const pins = policy.manifest.digests;
  const short = `${digest.slice(0, 16)}…`;
  const unknown = `${short} is none of the ${pins.length} pinned manifests`;
  ledger.expect("manifest", pins.includes(digest), `${short} is pinned`, unknown);
  const platform = policy.platformName;
  const says = `the manifest says ${platform}`;
  ledger.expect("platform", manifest.platform === platform, says, `the manifest does not say ${platform}`);
  const { shape } = policy.session;
  const refusal = `${shape} is not offered, and nothing else will do`;
  ledger.expect("shape", manifest.shapes.includes(shape), `${shape} is offered`, refusal);
  return manifest;
}
