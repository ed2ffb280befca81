"""Platform and quoting enclave have each a TCB status of their own; the library's merged one hides some of them."""

import json
from itertools import product

import pytest
from confide_attestation.result import AttestationResult, Verdict
from confide_attestation.simulated.intel import SimulatedIntel, level

from tests.fakes.scene import NOW
from tests.fakes.tdx_scene import TdxScene
from tests.unit.attestation.tdx.support import failed, intel

PLATFORM = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
)
# dcap-qvl knows no other of a quoting enclave, but Revoked.
QE = ("UpToDate", "ConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded")
MATRIX = tuple(product(PLATFORM, QE))
ADVISORY = "INTEL-SA-00960"


def documents(device: SimulatedIntel, platform: str, qe: str, qe_advisories: tuple[str, ...] = ()) -> bytes:
    identity = device.qe_identity()
    identity["tcbLevels"][0] |= {"tcbStatus": qe, "advisoryIDs": list(qe_advisories)}
    return device.collateral(tcb_info=device.tcb_info(tcbLevels=[level(platform)]), qe_identity=identity)


def appraised(
    platform: str,
    qe: str,
    statuses: tuple[str, ...],
    qe_advisories: tuple[str, ...] = (),
    until: str = "2028-01-01",
) -> AttestationResult:
    scene = TdxScene()
    scene.collateral = lambda device: documents(device, platform, qe, qe_advisories)
    scene.edit_policy(
        'tcb_grace = "refused"',
        f'tcb_grace = {{ statuses = {json.dumps(statuses)}, advisories = ["{ADVISORY}"], '
        f'until = {until}T00:00:00Z, because = "being updated" }}',
    )
    return scene.appraise()


def ids(result: AttestationResult) -> list[str]:
    return [check.id for check in result.failed]


@pytest.mark.parametrize(("platform", "qe"), MATRIX)
def test_without_a_policy_both_are_up_to_date_or_the_quote_is_refused(platform: str, qe: str) -> None:
    """Whatever the library makes of the two together."""
    refused = failed(None, documents(intel(), platform, qe))
    assert refused == ([] if platform == qe == "UpToDate" else ["tcb_status_denied"])


@pytest.mark.parametrize(("platform", "qe"), MATRIX)
def test_a_grace_lists_every_status_that_it_accepts(platform: str, qe: str) -> None:
    """With all listed the machine is accepted; without the quoting enclave's, or the platform's, it is not."""
    assert appraised(platform, qe, PLATFORM[1:]).verdict is Verdict.ACCEPTED
    for missing in {platform, qe} - {"UpToDate"}:
        rest = tuple(status for status in PLATFORM[1:] if status != missing)
        assert ids(appraised(platform, qe, rest)) == ["tcb_status_denied"]


@pytest.mark.parametrize("qe", QE[1:])
def test_a_grace_for_the_quoting_enclave_ends_and_lists_its_advisories(qe: str) -> None:
    """The date counts, the result ends with it, and an advisory of the enclave's alone is one that is open."""
    assert ids(appraised("UpToDate", qe, PLATFORM[1:], until="2026-01-01")) == ["tcb_grace"]
    assert ids(appraised("UpToDate", qe, PLATFORM[1:], ("INTEL-SA-01036",))) == ["advisory_denied"]
    accepted = appraised("UpToDate", qe, PLATFORM[1:], (ADVISORY,))
    assert accepted.keyset is not None
    assert accepted.keyset.valid_until_unix_s > NOW
    assert accepted.claims["cpu0"]["qe_tcb_status"] == qe
