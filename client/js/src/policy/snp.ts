/** What a policy demands of an SEV-SNP report. */

import type { Waived } from "../ledger.js";
import { bool, hexOf, int, integer, listOf, moment, oneOf, orWord, table, text, waivable, written, type Reader } from "./schema.js";

/** The least patch level of each component; `fmc` is Turin's. */
export type MinTcb = Readonly<Record<string, number>>;

export interface ProductRule {
  min_tcb: MinTcb;
  /** From this time on, more is demanded. */
  rises: "never" | { at: number; min_tcb: MinTcb };
  /** Milan alone: why it is accepted although its keys can be extracted. */
  accepted_because?: string;
}

export interface SnpPolicy {
  products: Record<"milan" | "genoa" | "turin", "refused" | ProductRule>;
  signers: ("VCEK" | "VLEK")[];
  measurements: string[];
  host_data: string[] | Waived;
  id_key_digests: string[] | Waived;
  author_key_digests: string[] | Waived;
  chip_ids: string[] | Waived;
  crl: { max_age_s: number } | Waived;
  vmpl: number[];
  min_firmware: string;
  min_guest_svn: number;
  alias_check: "required" | Waived;
  mit_vector: number | bigint | Waived;
  guest_policy: {
    allow_smt: boolean;
    allow_cxl: boolean;
    require_single_socket: boolean;
    require_mem_aes_256_xts: boolean;
    require_rapl_disabled: boolean;
    require_ciphertext_hiding: boolean;
    require_page_swap_disabled: boolean;
  };
}

const level = int(0, 255);
const common = { bl: level, tee: level, snp: level, ucode: level };

function rule(least: Reader<MinTcb>) {
  return { min_tcb: least, rises: orWord("never", table({ at: moment, min_tcb: least })) };
}

const zen4 = table<{ [part: string]: number }>(common);
const zen5 = table<{ [part: string]: number }>({ ...common, fmc: level });

const products: Reader<SnpPolicy["products"]> = (value, field, faults) => {
  const read = table<SnpPolicy["products"]>({
    milan: orWord("refused", table<ProductRule>({ ...rule(zen4), accepted_because: written } as never)),
    genoa: orWord("refused", table<ProductRule>(rule(zen4) as never)),
    turin: orWord("refused", table<ProductRule>(rule(zen5) as never)),
  })(value, field, faults);
  if (read && Object.values(read).length === 3 && Object.values(read).every((each) => each === "refused")) {
    faults.push([field, "refuses every product; accept at least one"]);
  }
  return read;
};

export const snpPolicy: Reader<SnpPolicy> = table<SnpPolicy>({
  products,
  signers: listOf(oneOf("VCEK", "VLEK")),
  measurements: listOf(hexOf(48)),
  host_data: waivable(listOf(hexOf(32))),
  id_key_digests: waivable(listOf(hexOf(48))),
  author_key_digests: waivable(listOf(hexOf(48))),
  chip_ids: waivable(listOf(hexOf(64))),
  crl: waivable(table({ max_age_s: int(3600, 400 * 86_400) })),
  vmpl: listOf(int(0, 3)),
  min_firmware: text(/^\d{1,3}\.\d{1,3}\.\d{1,3}$/, "a version of three numbers, as 1.55.0"),
  min_guest_svn: int(0, 2 ** 32 - 1),
  alias_check: waivable(oneOf("required")),
  mit_vector: waivable(integer(1n, 2n ** 63n - 1n)),
  guest_policy: table<SnpPolicy["guest_policy"]>({
    allow_smt: bool,
    allow_cxl: bool,
    require_single_socket: bool,
    require_mem_aes_256_xts: bool,
    require_rapl_disabled: bool,
    require_ciphertext_hiding: bool,
    require_page_swap_disabled: bool,
  }),
});
