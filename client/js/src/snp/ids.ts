/** Every check of a SEV-SNP report by its id, in the order of every result. A check is named for what it refuses. */

import { span } from "../ledger.js";

const CHAIN = [
  "vek_format", "ask_format", "ark_format", "vek_extensions", "chain_roles", "ark_pin", "ark_sig", "ask_sig",
  "vek_sig", "ark_validity", "ask_validity", "vek_validity", "crl_format", "crl_sig", "crl_expired", "ask_revoked",
] as const; // prettier-ignore
const REPORT = [
  "report_size", "report_version", "report_reserved", "sig_algo", "sig_padding", "signing_key",
  "signing_key_mismatch", "unknown_cpuid", "product_mismatch", "tcb_mismatch", "chip_id_masked", "hwid_missing",
  "hwid_mismatch", "report_sig", "debug", "migrate_ma", "policy_mbo", "policy_mbz",
] as const; // prettier-ignore
const POLICY = [
  "crl_age", "product_denied", "signer", "measurement", "host_data", "id_key_digest", "author_key_digest", "chip_id",
  "vmpl", "min_tcb", "tcb_order", "min_abi", "min_guest_svn", "smt", "cxl", "single_socket", "mem_aes_256_xts",
  "rapl_disabled", "ciphertext_hiding", "page_swap_disabled", "alias_check", "mit_vector",
] as const; // prettier-ignore

export const SNP_CHECKS = [...CHAIN, ...REPORT, ...POLICY] as const;
export type SnpCheck = (typeof SNP_CHECKS)[number];
export const SNP_CHAIN_CHECKS: readonly SnpCheck[] = CHAIN;
export const SNP_REPORT_CHECKS: readonly SnpCheck[] = REPORT;
export const SNP_POLICY_CHECKS: readonly SnpCheck[] = POLICY;
export const REVOCATION_CHECKS = span<SnpCheck>(SNP_CHECKS, "crl_format", "ask_revoked");

/** Claims are read from a report only when all of these hold. */
export const SNP_SIGNATURES: readonly SnpCheck[] = [
  "vek_extensions", "chain_roles", "ark_pin", "ark_sig", "ask_sig", "vek_sig", "report_sig",
]; // prettier-ignore

/** A failure of one of these means that an input is not a file of its kind at all. */
export const SNP_FILES: readonly SnpCheck[] = ["vek_format", "ask_format", "ark_format", "crl_format", "report_size"];
