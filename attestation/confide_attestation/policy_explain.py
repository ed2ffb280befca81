"""Say in words what a policy demands, what it does not check and why, and what no policy can allow."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from confide_protocol.settings import Settings

from confide_attestation.policy import AppraisalPolicy, AzureSnpPlatform, AzureTdxPlatform, SnpPlatform
from confide_attestation.policy_types import Waived

MAX_SHOWN = 3
SHOWN_DIGITS = 16

# What each field demands, by the last two names of its place; {} stands for its value.
SENTENCES: Final[Mapping[str, str]] = {
    "session.suite": "requests are sealed with {}",
    "session.shape": "sizes are hidden by the shape {}",
    "freshness": "evidence answers this client's own {}",
    "freshness.epoch_max_age_s": "evidence answers a public epoch of at most {} s ago",
    "manifest.digests": "release, weights, tokenizer and engine settings are those of manifest {}",
    "platform.profile": "the machine is measured as {}",
    "gpu": "GPUs: {}",
    "simulated.amd_ark_sha256": "of AMD, trust only the simulated root {}",
    "simulated.intel_root_sha256": "of Intel, trust only the simulated root {}",
    "simulated.nvidia_device_root_spki_sha256": "of NVIDIA's devices, trust only the simulated root {}",
    "simulated.nvidia_rim_root_spki_sha256": "of NVIDIA's manifests, trust only the simulated root {}",
    "snp.signers": "the report is signed by a {}",
    "snp.measurements": "the launch measurement is {}",
    "snp.host_data": "the host data is {}",
    "snp.id_key_digests": "the identity block's key is {}",
    "snp.author_key_digests": "the author's key is {}",
    "snp.chip_ids": "the chip is {}",
    "crl.max_age_s": "AMD's revocation list is at most {} s old",
    "snp.vmpl": "the report was asked for at VMPL {}",
    "snp.min_firmware": "the SNP firmware is at least {}",
    "snp.min_guest_svn": "the guest's security version is at least {}",
    "snp.alias_check": "the firmware's check for memory aliases is {}",
    "snp.mit_vector": "mitigations {} are in place",
    "products.milan": "Milan: {}",
    "products.genoa": "Genoa, Bergamo, Siena: {}",
    "products.turin": "Turin: {}",
    "milan.accepted_because": "Milan is accepted because {}",
    "min_tcb.bl": "boot loader at least {}",
    "min_tcb.tee": "TEE at least {}",
    "min_tcb.snp": "SNP firmware's SVN at least {}",
    "min_tcb.ucode": "microcode at least {}",
    "min_tcb.fmc": "FMC at least {}",
    "rises.at": "from {} on, more is demanded:",
    "genoa.rises": "these levels rise: {}",
    "milan.rises": "these levels rise: {}",
    "turin.rises": "these levels rise: {}",
    "guest_policy.allow_smt": "SMT may be on: {}",
    "guest_policy.allow_cxl": "CXL may be used: {}",
    "guest_policy.require_single_socket": "one socket alone is demanded: {}",
    "guest_policy.require_mem_aes_256_xts": "AES-256-XTS for memory is demanded: {}",
    "guest_policy.require_rapl_disabled": "RAPL must be off: {}",
    "guest_policy.require_ciphertext_hiding": "ciphertext hiding is demanded: {}",
    "guest_policy.require_page_swap_disabled": "page swapping must be off: {}",
    "tdx.min_tcb_evaluation_number": "Intel's TCB evaluation number is at least {}",
    "tdx.max_collateral_age_s": "Intel's TCB info, QE identity and PCK list are at most {} s old",
    "tdx.max_root_crl_age_s": "the list of Intel's root is at most {} s old",
    "tdx.tcb_grace": "a TCB status other than UpToDate: {}",
    "tcb_grace.statuses": "for a while TCB status {} is accepted",
    "tcb_grace.advisories": "with no other open advisories than {}",
    "tcb_grace.until": "until {}",
    "tcb_grace.because": "because {}",
    "tdx.ppids": "the platform is {}",
    "tdx.mr_seam": "the TDX module is {}",
    "tdx.mr_td": "MRTD (firmware) is {}",
    "tdx.rtmr0": "RTMR0 is {}",
    "tdx.rtmr1": "RTMR1 is {}",
    "tdx.rtmr2": "RTMR2 is {}",
    "tdx.rtmr3": "RTMR3 is {}",
    "tdx.mr_config_id": "MRCONFIGID is {}",
    "tdx.mr_owner": "MROWNER is {}",
    "tdx.mr_owner_config": "MROWNERCONFIG is {}",
    "tdx.xfam": "XFAM is {}",
    "platform_configuration.allow_smt": "SMT may be on: {}",
    "platform_configuration.allow_dynamic_platform": "the platform may be dynamic: {}",
    "platform_configuration.allow_cached_keys": "Intel may hold the platform's keys: {}",
    "td_attributes.allow_pks": "supervisor protection keys may be used: {}",
    "td_attributes.allow_key_locker": "Key Locker may be used: {}",
    "td_attributes.allow_perfmon": "performance counters may be used: {}",
    "td_attributes.allow_lass": "LASS may be used: {}",
    "dstack.compose_hashes": "the application (SHA-256 of app-compose.json) is {}",
    "vtpm.secure_boot": "secure boot is {}",
    "vtpm.console": "the host's console is {}",
    "vtpm.user_data": "the user data are {}",
    "gpu.gpus": "{} GPUs, no more and no fewer",
    "gpu.switches": "{} NVSwitches, no more and no fewer",
    "gpu.architectures": "architecture {}",
    "gpu.modes": "mode {}",
    "gpu.min_driver": "driver at least {}",
    "gpu.firmware": "firmware {}",
    "gpu.ueids": "the GPUs are {}",
    "gpu.fwid": "the report repeats the digest of its firmware: {}",
    "revocation.max_age_s": "NVIDIA's answers about each certificate are at most {} s old",
    "revocation.rim_hold": "a manifest whose certificate is on hold: {}",
    "rim_hold.accepted_because": "a manifest whose certificate is on hold is accepted because {}",
}
_ALWAYS = "certificates or lists out of their time, roots other than the pinned ones, evidence for another keyset"
_SNP = "debugging, migration agents, a report that does not agree with its VCEK or VLEK"
_TDX = "debugging, profiling, migration, service TDs, SEPT_VE_DISABLE off, a revoked TCB"
_AZURE = "a report asked for at another VMPL than 0, a weak or second attestation key, an incomplete PCR digest"
_GPU = "debug manifests, golden values that differ, a device twice, mixed architectures or modes, foreign wiring"


@dataclass(frozen=True)
class Demand:
    """One field: its place in the file, and what it demands in words; or the reason why it is not checked."""

    place: str
    words: str
    waived: bool = False


def explain_policy(policy: AppraisalPolicy) -> tuple[Demand, ...]:
    """Return what each field of a policy demands, in the order of its file's sections."""
    head = {"id", "serial", "not_after", "kind"}
    return tuple(
        demand
        for name in type(policy).model_fields
        if name not in head
        for demand in _explain(name, getattr(policy, name))
    )


def refused_always(policy: AppraisalPolicy) -> tuple[str, ...]:
    """Return what this policy refuses without saying so, since every policy does."""
    platform = policy.platform
    snp = isinstance(platform, SnpPlatform | AzureSnpPlatform)
    azure = isinstance(platform, AzureSnpPlatform | AzureTdxPlatform)
    return (
        _ALWAYS,
        _SNP if snp else _TDX,
        *((_AZURE,) if azure else ()),
        *(() if policy.gpu == "none" else (_GPU,)),
    )


def _explain(place: str, value: object) -> Iterator[Demand]:
    if isinstance(value, Waived):
        yield Demand(place, value.waived, waived=True)
    elif isinstance(value, Settings):
        for name in type(value).model_fields:
            yield from _explain(f"{place}.{name}", getattr(value, name))
    elif place.endswith("vtpm.pcrs") and isinstance(value, Mapping):
        for pcr, values in sorted(value.items(), key=lambda item: int(item[0])):
            yield Demand(f"{place}.{pcr}", f"PCR {pcr} is {_words(values)}")
    else:
        sentence = sentence_of(place)
        if value == "none" and place.startswith("simulated."):
            sentence = sentence.replace("only the simulated root {}", "nothing")
        yield Demand(place, sentence.format(_words(value)))


def sentence_of(place: str) -> str:
    """Return the sentence for a field at `place`. Raises: KeyError if there is none."""
    return SENTENCES[".".join(place.split(".")[-2:])]


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M} UTC"
    if isinstance(value, tuple):
        shown = " or ".join(_words(each) for each in value[:MAX_SHOWN])
        more = len(value) - MAX_SHOWN
        return shown + (f" or one of {more} more" if more > 0 else "")
    text = str(value)
    return f"{text[:SHOWN_DIGITS]}…" if len(text) > 2 * SHOWN_DIGITS and _is_hex(text) else text


def _is_hex(text: str) -> bool:
    return set(text) <= set("0123456789abcdef")
