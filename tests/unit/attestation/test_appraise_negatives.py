"""Every check bites: one corruption each, signed afresh, and exactly that check fails."""

from collections.abc import Callable
from enum import StrEnum
from types import SimpleNamespace

import pytest
from confide_attestation.appraise import appraise
from confide_attestation.checks.ids import BINDING_CHECKS, POLICY_CHECKS, CheckId
from confide_attestation.evidence import CpuEvidence, CpuKind, Endorsements, EventLog, GpuEvidence
from confide_attestation.result import Outcome, Verdict
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.snp.certificates import OID_HWID, OID_PRODUCT, OID_SPL
from confide_attestation.snp.ids import SnpCheck
from confide_protocol.keyconfig import KeyConfig, encode_key_configs
from confide_protocol.statement import NoncePath
from cryptography import x509

from tests.fakes.scene import NOW, Scene, other_keys

Corruption = Callable[[Scene], object]
CASES: list[tuple[str, StrEnum, Corruption]] = []
PAST, FUTURE = (NOW - 7200, NOW - 1), (NOW + 1, NOW + 7200)
NO_CRL = 'crl = { waived = "a simulated root publishes no revocation list" }'


def case(check_id: StrEnum, name: str, corrupt: Corruption) -> None:
    CASES.append((f"{check_id}-{name}", check_id, corrupt))


def reported(**fields: object) -> Corruption:
    return lambda scene: scene.report.update(fields)


def device(**fields: object) -> Corruption:
    return lambda scene: scene.amd.update(fields)


def edited(old: str, new: str) -> Corruption:
    return lambda scene: scene.edit_policy(old, new)


def endorsed(make: Callable[[SimulatedAmd], dict[str, bytes | None]]) -> Corruption:
    def corrupt(scene: Scene) -> None:
        scene.endorse = make

    return corrupt


def flipped(at: int) -> Corruption:
    def corrupt(scene: Scene) -> None:
        scene.after_signing = lambda r: r[:at] + bytes([r[at] ^ 1]) + r[at + 1 :]

    return corrupt


def resized(change: Callable[[bytes], bytes]) -> Corruption:
    def corrupt(scene: Scene) -> None:
        scene.after_signing = change

    return corrupt


def both(*corruptions: Corruption) -> Corruption:
    return lambda scene: [corrupt(scene) for corrupt in corruptions]


def listed(signed_by_other: bool = False, revoke: bool = False, age_s: int = 60, ends: int = 3600) -> Corruption:
    def make(amd: SimulatedAmd) -> dict[str, bytes | None]:
        serial = x509.load_der_x509_certificate(amd.ask).serial_number
        crl = amd.crl(
            issued_unix_s=NOW - age_s,
            next_update_unix_s=NOW + ends,
            revoked=[serial] if revoke else [],
            signed_by=other_keys().ark if signed_by_other else None,
        )
        return {"crl": crl}

    return endorsed(make)


def ark(amd: SimulatedAmd, **fields: object) -> dict[str, bytes | None]:
    return {"ark": amd.certificate("ARK-Genoa", "ARK-Genoa", amd.keys.ark, **fields)}  # type: ignore[arg-type]


def ask(amd: SimulatedAmd, name: str = "SEV-Genoa", **fields: object) -> dict[str, bytes | None]:
    return {"ask": amd.certificate(name, "ARK-Genoa", amd.keys.ask, **fields)}  # type: ignore[arg-type]


def vek(amd: SimulatedAmd, **fields: object) -> dict[str, bytes | None]:
    return {"vek": amd.certificate("SEV-VCEK", "SEV-Genoa", amd.keys.vek, **fields)}  # type: ignore[arg-type]


# Checks of both lists by their names.
C = SimpleNamespace(**{check.name: check for check in (*CheckId, *SnpCheck)})
ALL: tuple[StrEnum, ...] = (*POLICY_CHECKS, *SnpCheck, *BINDING_CHECKS)
# The policy itself
case(C.POLICY_EXPIRED, "now", lambda s: s.policy_fields.update(not_after_unix_s=NOW))
case(C.POLICY_SERIAL, "rolled-back", lambda s: s.arguments.update(floor=2))
case(C.SIMULATED, "not-allowed", lambda s: s.arguments.update(allow_simulated=False))
# The chain
for part, check_id in (("vek", C.VEK_FORMAT), ("ask", C.ASK_FORMAT), ("ark", C.ARK_FORMAT), ("crl", C.CRL_FORMAT)):
    case(check_id, "garbage", endorsed(lambda _, part=part: {part: b"garbage"}))
case(C.VEK_EXTENSIONS, "no-product", device(omitted=[OID_PRODUCT]))
case(C.VEK_EXTENSIONS, "no-level", device(omitted=[OID_SPL["snp"]]))
case(C.VEK_EXTENSIONS, "unknown-product", device(product_name="Venice"))
case(C.CHAIN_ROLES, "ask-of-milan", endorsed(lambda amd: ask(amd, "SEV-Milan")))
case(C.CHAIN_ROLES, "asvk-for-vcek", endorsed(lambda amd: ask(amd, "SEV-VLEK-Genoa")))
case(C.ARK_PIN, "another", lambda s: s.policy_fields.update(ark_sha256=bytes(32)))
case(C.ARK_SIG, "forged", endorsed(lambda amd: ark(amd, signed_by=other_keys().ark)))
case(C.ASK_SIG, "forged", endorsed(lambda amd: ask(amd, signed_by=other_keys().ark)))
case(C.VEK_SIG, "forged", endorsed(lambda amd: vek(amd, signed_by=other_keys().ask)))
for window in (PAST, FUTURE):
    case(C.ARK_VALIDITY, str(window[0]), endorsed(lambda amd, w=window: ark(amd, window=w)))
    case(C.ASK_VALIDITY, str(window[0]), endorsed(lambda amd, w=window: ask(amd, window=w)))
    case(C.VEK_VALIDITY, str(window[0]), endorsed(lambda amd, w=window: vek(amd, window=w)))
case(C.CRL_SIG, "forged", listed(signed_by_other=True))
case(C.CRL_EXPIRED, "old", listed(age_s=7200, ends=-1))
case(C.CRL_EXPIRED, "not-yet", listed(age_s=-60))
case(C.ASK_REVOKED, "listed", listed(revoke=True))
case(C.CRL_AGE, "too-old", both(listed(age_s=7200), edited(NO_CRL, "crl = { max_age_s = 3600 }")))
case(C.CRL_AGE, "absent", edited(NO_CRL, "crl = { max_age_s = 3600 }"))
# The report
case(C.REPORT_SIZE, "short", resized(lambda r: r[:-1]))
case(C.REPORT_SIZE, "long", resized(lambda r: r + b"\0"))
case(C.REPORT_SIZE, "empty", resized(lambda r: b""))
case(C.REPORT_VERSION, "1", reported(version=1))
case(C.REPORT_VERSION, "6", reported(version=6))
for at in (0x49, 0x4C, 0x18B, 0x1EB, 0x1EF, 0x208, 0x29F):
    case(C.REPORT_RESERVED, hex(at), reported(patches={at: b"\x01"}))
case(C.REPORT_RESERVED, "v4-mit-vector", reported(version=4, patches={0x1F8: b"\x01"}))
case(C.REPORT_RESERVED, "v2-cpuid", reported(version=2, patches={0x188: b"\x19"}))
case(C.REPORT_RESERVED, "tcb", reported(patches={0x38 + 4: b"\x01"}))
case(C.SIG_ALGO, "2", reported(signature_algo=2))
for at in (0x2A0 + 48, 0x2E8 + 71, 0x330, 1183):
    case(C.SIG_PADDING, hex(at), flipped(at))
case(C.SIGNING_KEY, "none", reported(flags=7 << 2))
case(C.SIGNING_KEY, "unknown", reported(flags=3 << 2))
case(C.SIGNING_KEY_MISMATCH, "vlek-flag-on-vcek", reported(flags=1 << 2))
vlek_accepted = both(device(signer="VLEK"), edited('signers = ["VCEK"]', 'signers = ["VCEK", "VLEK"]'))
case(C.SIGNING_KEY_MISMATCH, "vcek-flag-on-vlek", both(vlek_accepted, reported(flags=0)))
case(C.UNKNOWN_CPUID, "model", reported(cpuid=bytes((0x19, 0x50, 0))))
case(C.UNKNOWN_CPUID, "family", reported(cpuid=bytes(3)))
levels = 'min_tcb = { bl = 0, tee = 0, snp = 0, ucode = 0 }, rises = "never"'
milan = f'milan = {{ accepted_because = "for this test only", {levels} }}'
case(
    C.PRODUCT_MISMATCH,
    "milan-report",
    both(edited('milan = "refused"', milan), reported(cpuid=bytes((0x19, 1, 1)))),
)
case(C.TCB_MISMATCH, "lower", reported(reported_tcb=bytes((10, 0, 0, 0, 0, 0, 22, 84))))
case(C.CHIP_ID_MASKED, "zero", reported(chip_id=bytes(64)))
case(C.CHIP_ID_MASKED, "flag", reported(flags=2))
case(C.HWID_MISSING, "absent", device(omitted=[OID_HWID]))
case(C.HWID_MISMATCH, "other", reported(chip_id=b"\x01" * 64))
case(C.HWID_MISMATCH, "turin-tail", both(device(product="Turin"), reported(patches={0x1A8: b"\x01"})))
for at in (0x4, 0x50, 0x90, 0xC0, 0x1A0, 0x2A0, 0x2E8):
    case(C.REPORT_SIG, hex(at), flipped(at) if at != 0x1A0 else both(device(chip_id=b"c" * 64), flipped(0x90)))
case(C.DEBUG, "bit", reported(policy=0xB0000))
case(C.MIGRATE_MA, "bit", reported(policy=0x70000))
case(C.POLICY_MBO, "zero", reported(policy=0x10000))
case(C.POLICY_MBZ, "26", reported(policy=0x30000 | 1 << 26))
case(C.POLICY_MBZ, "63", reported(policy=0x30000 | 1 << 63))
# Claims against the policy
case(C.PRODUCT_DENIED, "milan", device(product="Milan"))
case(C.SIGNER, "vlek", device(signer="VLEK"))
case(C.MEASUREMENT, "other", reported(measurement=b"\x01" * 48))
case(C.HOST_DATA, "other", reported(host_data=b"\x01" * 32))
NO_ID = '{ waived = "simulated guests have no identity block" }'
for check_id, name in ((C.ID_KEY_DIGEST, "id_key_digests"), (C.AUTHOR_KEY_DIGEST, "author_key_digests")):
    case(check_id, "other", edited(f"{name} = {NO_ID}", f'{name} = ["{"11" * 48}"]'))
case(
    C.CHIP_ID,
    "not-listed",
    edited('chip_ids = { waived = "a simulated chip is made anew on each run" }', f'chip_ids = ["{"22" * 64}"]'),
)
case(C.VMPL, "1", reported(vmpl=1))
case(
    C.MIN_TCB,
    "snp",
    edited('snp = 0, ucode = 0 }, rises = "never" }\nturin', 'snp = 24, ucode = 0 }, rises = "never" }\nturin'),
)
case(C.TCB_ORDER, "launch-above-committed", reported(launch_tcb=bytes((10, 0, 0, 0, 0, 0, 24, 84))))
case(C.TCB_ORDER, "committed-above-current", reported(current_tcb=bytes((10, 0, 0, 0, 0, 0, 22, 84))))
case(C.MIN_ABI, "minor", edited('"1.55.0"', '"1.56.0"'))
case(C.MIN_GUEST_SVN, "1", edited("min_guest_svn = 0", "min_guest_svn = 1"))
case(C.SMT, "on", edited("allow_smt = true", "allow_smt = false"))
case(C.CXL, "on", reported(policy=0x30000 | 1 << 21))
for check_id in (C.SINGLE_SOCKET, C.MEM_AES_256_XTS, C.RAPL_DISABLED, C.CIPHERTEXT_HIDING, C.PAGE_SWAP_DISABLED):
    case(check_id, "off", edited(f"require_{check_id} = false", f"require_{check_id} = true"))
case(C.ALIAS_CHECK, "not-done", reported(platform_info=1))
NO_MIT = 'mit_vector = { waived = "simulated mitigations mitigate nothing" }'
case(C.MIT_VECTOR, "lacking", edited(NO_MIT, "mit_vector = 0x7f"))
case(C.MIT_VECTOR, "version-4", both(edited(NO_MIT, "mit_vector = 0x1"), reported(version=4)))
# From the report to the keyset
case(C.STATEMENT_FORMAT, "garbage", lambda s: s.bundle.update(statement=b"\xa0"))
case(C.REPORT_DATA, "other", reported(report_data=bytes(64)))
case(C.STATEMENT_EXPIRED, "now", lambda s: s.statement.update(not_after_unix_s=NOW))
case(C.NONCE, "other", lambda s: s.arguments.update(nonce=b"m" * 32))
case(C.NONCE, "none-asked", lambda s: s.arguments.update(nonce=None))
case(C.NONCE, "epoch", lambda s: s.statement.update(nonce=None, epoch=b"e" * 32))
case(C.NONCE, "path", lambda s: s.bundle.update(nonce_path=NoncePath(((True, bytes(32)),))))
case(C.KEYSET_FORMAT, "garbage", lambda s: s.bundle.update(keyset=b"\xa0"))
case(C.KEYSET_DIGEST, "other", lambda s: s.statement.update(keyset_digest=bytes(32)))
case(C.KEYSET_VALIDITY, "ended", lambda s: s.keyset.update(not_after_unix_s=NOW))
case(C.KEYSET_VALIDITY, "not-yet", lambda s: s.keyset.update(not_before_unix_s=NOW + 61))
case(C.KEYSET_KIND, "says-hardware", lambda s: s.keyset.update(simulated=False))
case(C.MANIFEST_FORMAT, "garbage", lambda s: s.bundle.update(manifest=b"\xa0"))
case(C.MANIFEST_DIGEST, "other", lambda s: s.keyset.update(manifest_digest=bytes(32)))
case(C.MANIFEST, "not-pinned", lambda s: s.policy_fields.update(manifest_digest=bytes(32)))
case(C.PLATFORM, "says-hardware", lambda s: s.manifest.update(platform="sev-snp"))
classical = encode_key_configs([KeyConfig(1, 0x20, bytes(32), ((1, 2),))])
case(C.SUITE, "x25519-only", lambda s: s.keyset.update(ohttp_keys=classical))
case(C.SUITE, "garbage", lambda s: s.keyset.update(ohttp_keys=b"\xff"))
case(C.SHAPE, "none-only", lambda s: s.manifest.update(shapes=("none",)))
case(C.GPU_EVIDENCE, "unasked", lambda s: s.bundle.update(gpus=(GpuEvidence("HOPPER", b"", b""),)))
case(C.GPU_EVIDENCE, "bound", lambda s: s.statement.update(gpu_evidence_digest=bytes(32)))
case(C.EVENT_LOGS, "one", lambda s: s.bundle.update(event_logs=(EventLog("ccel", b""),)))


@pytest.mark.parametrize(("check_id", "corrupt"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_corruption_fails_exactly_its_check(check_id: StrEnum, corrupt: Corruption) -> None:
    """One corruption, one failing check, no keyset."""
    scene = Scene()
    corrupt(scene)
    result = scene.appraise()
    assert {check.id for check in result.failed} == {check_id.value}
    assert result.verdict is Verdict.REFUSED
    assert result.keyset is None


def test_every_check_has_a_negative() -> None:
    """No check is without a corruption that makes it fail."""
    assert {check_id for _, check_id, _ in CASES} == set(ALL) - {C.CPU_KIND}


def test_evidence_of_another_kind_is_judged_as_none() -> None:
    """A report under another kind's name counts as absent, and every check is listed."""
    scene = Scene()
    evidence, _, _ = scene.build()
    scene.bundle.update(cpu=CpuEvidence(CpuKind.TDX, evidence.cpu.report))
    result = scene.appraise()
    assert {check.id for check in result.failed} == {C.REPORT_SIZE, C.CPU_KIND}
    assert [check.id for check in result.checks] == [c.value for c in ALL]


def test_without_endorsements_the_vek_is_what_is_missing() -> None:
    """Absent endorsements fail; they are not skipped."""
    evidence, _, policy = Scene().build()
    result = appraise(evidence, Endorsements(), policy, now_unix_s=NOW, floor=1, nonce=None, allow_simulated=True)
    assert {check.id for check in result.failed} == {SnpCheck.VEK_FORMAT, CheckId.NONCE}


def test_all_failures_are_listed() -> None:
    """Three faults of three kinds are three failures, in the order of the ids."""
    scene = Scene()
    scene.report.update(policy=0xB0000, vmpl=1)
    scene.arguments.update(nonce=b"m" * 32)
    assert [check.id for check in scene.appraise().failed] == [C.DEBUG, C.VMPL, C.NONCE]


def test_nothing_of_an_unsigned_report_is_shown() -> None:
    """After a broken signature there are no claims, and no claim is measured against the policy."""
    scene = Scene()
    flipped(0x90)(scene)
    result = scene.appraise()
    outcomes = {check.id: check.outcome for check in result.checks}
    assert not result.claims
    assert outcomes[C.MEASUREMENT] is Outcome.SKIP
    assert outcomes[C.REPORT_DATA] is Outcome.SKIP


def test_result_has_every_check_in_order() -> None:
    """Accepted or refused, a result holds every id once and in the same order."""
    scene = Scene()
    scene.bundle.update(cpu=CpuEvidence(CpuKind.SEV_SNP, b""))
    for result in (Scene().appraise(), scene.appraise()):
        assert [check.id for check in result.checks] == [c.value for c in ALL]
    assert {*POLICY_CHECKS, *BINDING_CHECKS} == set(CheckId)
