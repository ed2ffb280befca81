"""A refusal in one line: which check, what it found, what to do."""

from typing import Any

import pytest
from confide_attestation.checks.ids import CheckId
from confide_attestation.errors import REMEDIES, AppraisalRejected
from confide_attestation.snp.ids import SnpCheck
from confide_attestation.tdx.ids import TdxCheck

from tests.fakes.scene import NOW, Scene
from tests.fakes.tdx_scene import TdxScene


def level(status: str) -> Any:
    def corrupt(intel: Any) -> bytes:
        first, *others = intel.tcb_info()["tcbLevels"]
        changed = {
            **first,
            "tcbStatus": status,
            "tcbDate": "2024-03-13T00:00:00Z",
            "advisoryIDs": ["INTEL-SA-00960"],
        }
        made: bytes = intel.collateral(tcb_info=intel.tcb_info(tcbLevels=[changed, *others]))
        return made

    return corrupt


@pytest.mark.parametrize(
    ("scene", "says"),
    [
        (Scene(arguments={"allow_simulated": False}), ["simulated: ", "allow_simulated=True"]),
        (Scene(arguments={"floor": 7}), ["policy_serial: 1 is below 7", "newer policy"]),
        (Scene(arguments={"nonce": b"\7" * 32}), ["nonce: ", "not of now"]),
        (Scene(policy_fields={"manifest_digest": b"\1" * 32}), ["manifest: ", "another model or other settings"]),
        (Scene(arguments={"now_unix_s": NOW + 91 * 86_400}), ["policy_expired: ", "this machine's clock"]),
        (
            TdxScene(collateral=level("OutOfDate")),
            ["OutOfDate", "INTEL-SA-00960", "since 2024-03-13", "in tcb_grace"],
        ),
    ],
)
def test_a_refusal_says_what_to_do(scene: Scene | TdxScene, says: list[str]) -> None:
    """Everything that a person needs stands in the exception's own text."""
    said = str(AppraisalRejected(scene.appraise()))
    assert said.startswith("refused: ")
    assert all(words in said for words in says), said


def test_remedies_are_for_checks_that_exist() -> None:
    """No remedy waits for a check that was renamed."""
    assert set(REMEDIES) <= {str(each) for ids in (CheckId, SnpCheck, TdxCheck) for each in ids}
