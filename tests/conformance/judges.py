"""Our own verifiers, each as a function of files by their roles; simulated roots are given where there are some."""

from confide_attestation.eventlog.judge import verify_event_log
from confide_attestation.evidence import Endorsements, SnpEndorsements, TdxEndorsements, VtpmEvidence
from confide_attestation.nvidia.evidence import DeviceEvidence, NvidiaEndorsements
from confide_attestation.nvidia.judge_set import judge_devices, roots_of
from confide_attestation.nvidia.nras import verify_nras
from confide_attestation.nvidia.ocsp import OcspAnswer
from confide_attestation.part import Part
from confide_attestation.policy import SimulatedRoots
from confide_attestation.result import AttestationResult, Outcome, Verdict
from confide_attestation.snp.judge import judge_snp
from confide_attestation.tdx.judge import judge_tdx
from confide_attestation.vtpm.judge import judge_azure

from tests.conformance import Files, Judge, Judged

GOOD = (Verdict.AUTHENTIC, Verdict.ACCEPTED)


def of_result(result: AttestationResult) -> Judged:
    return Judged(result.verdict not in GOOD, frozenset(check.id for check in result.failed), dict(result.claims))


def of_part(part: Part) -> Judged:
    failed = frozenset(check.id for check in part.checks if check.outcome is Outcome.FAIL)
    return Judged(not part.holds, failed, dict(part.claims))


def numbered(files: Files, role: str) -> tuple[bytes, ...]:
    """Return the files whose role is `role` and a number, in order."""
    return tuple(data for name, data in files.items() if name.rstrip("0123456789") == role)


def only(**roots: str) -> SimulatedRoots:
    """Trust these roots and no other."""
    return SimulatedRoots(**{name: roots.get(name, "none") for name in SimulatedRoots.model_fields})


def endorsements(files: Files) -> Endorsements:
    snp = None
    if "vek" in files:
        snp = SnpEndorsements(files["vek"], files.get("ask"), files.get("ark"), files.get("crl"))
    tdx = TdxEndorsements(files["collateral"]) if "collateral" in files else None
    answers = tuple(map(OcspAnswer, numbered(files, "ocsp")))
    return Endorsements(snp, tdx, NvidiaEndorsements(numbered(files, "rim"), answers or None))


def snp(roots: SimulatedRoots | None = None) -> Judge:
    def judge(files: Files, now: int, nonce: bytes) -> Judged:
        return of_part(judge_snp(files.get("report", b""), endorsements(files).snp, None, roots, now_unix_s=now))

    return judge


def tdx(roots: SimulatedRoots | None = None) -> Judge:
    def judge(files: Files, now: int, nonce: bytes) -> Judged:
        return of_part(judge_tdx(files.get("quote", b""), endorsements(files).tdx, None, roots, now_unix_s=now))

    return judge


def nvidia(roots: SimulatedRoots | None = None) -> Judge:
    """Devices are `report0`, `chain0`, `report1` …; manifests `rim0` …; answers `ocsp0` …

    Without answers revocation is not judged.
    """

    def judge(files: Files, now: int, nonce: bytes) -> Judged:
        numbers = sorted({role[6:] for role in files if role.startswith("report")}) or ["0"]
        devices = [DeviceEvidence(files.get(f"report{n}", b""), files.get(f"chain{n}", b"")) for n in numbers]
        given = endorsements(files).nvidia or NvidiaEndorsements()
        return of_part(judge_devices(devices, given, None, roots_of(roots), now_unix_s=now, nonce=nonce))

    return judge


def azure(roots: SimulatedRoots | None = None) -> Judge:
    def judge(files: Files, now: int, nonce: bytes) -> Judged:
        parts = (files.get(role, b"") for role in ("tpm_quote", "tpm_signature", "pcrs", "td_quote"))
        return of_part(
            judge_azure(
                files.get("hcl", b""),
                VtpmEvidence(*parts),
                endorsements(files),
                None,
                roots,
                now_unix_s=now,
                nonce=nonce,
            )
        )

    return judge


def eventlog(root_der: bytes | None = None) -> Judge:
    def judge(files: Files, now: int, nonce: bytes) -> Judged:
        return of_result(
            verify_event_log(
                files.get("log", b""),
                files.get("quote", b""),
                now_unix_s=now,
                collateral_json=files.get("collateral", b""),
                root_der=root_der,
            )
        )

    return judge


def nras(files: Files, now: int, nonce: bytes) -> Judged:
    return of_result(verify_nras(files.get("tokens", b""), files.get("jwks", b""), now_unix_s=now, nonce=nonce))
