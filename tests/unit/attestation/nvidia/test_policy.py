"""What a policy can demand of GPUs: a whole machine, real versions, nothing left out."""

from typing import Any

import pytest
from confide_attestation.nvidia.policy import GpuPolicy
from confide_attestation.nvidia.validate import numbers
from confide_attestation.policy_types import Waived
from pydantic import ValidationError

WAIVED = {"waived": "waived for this test only"}
GOOD: dict[str, Any] = {
    "gpus": 1,
    "switches": 0,
    "architectures": ["HOPPER"],
    "modes": ["SPT"],
    "min_driver": "550.90.07",
    "firmware": ["96.00.9F.00.01"],
    "ueids": ["478176379286082186618948445787393647364802107249"],
    "fwid": "required",
    "revocation": {"max_age_s": 86_400, "rim_hold": "refused"},
}


def test_a_policy_is_read() -> None:
    """Strict values, and reasons in their places."""
    assert GpuPolicy.model_validate(GOOD).gpus == 1
    machine = {"gpus": 8, "switches": 4, "modes": ["PPCIE"]}
    assert GpuPolicy.model_validate({**GOOD, **machine}).switches == 4
    for field in ("firmware", "ueids", "fwid", "revocation"):
        policy = GpuPolicy.model_validate({**GOOD, field: WAIVED})
        assert isinstance(getattr(policy, field), Waived)
    hold = {"max_age_s": 60, "rim_hold": {"accepted_because": "the known fault is far"}}
    GpuPolicy.model_validate({**GOOD, "revocation": hold})


@pytest.mark.parametrize(
    "change",
    [
        {"gpus": 0},
        {"gpus": 33},
        {"switches": 4},
        {"modes": ["PPCIE"]},
        {"modes": ["PPCIE"], "gpus": 8},
        {"modes": ["PPCIE", "SPT"], "gpus": 8, "switches": 4},
        {"modes": []},
        {"modes": ["CC"]},
        {"modes": WAIVED},
        {"architectures": []},
        {"architectures": ["LS10"]},
        {"architectures": WAIVED},
        {"min_driver": "550"},
        {"min_driver": "R550.90"},
        {"min_driver": WAIVED},
        {"firmware": []},
        {"firmware": ["96.00.9f.00.01"]},
        {"firmware": ["96.00.9F.00"]},
        {"firmware": {"waived": "short"}},
        {"ueids": ["0x41"]},
        {"fwid": "optional"},
        {"revocation": "refused"},
        {"revocation": {"max_age_s": 86_400}},
        {"revocation": {"max_age_s": 59, "rim_hold": "refused"}},
        {"revocation": {"max_age_s": 86_400, "rim_hold": "accepted"}},
        {"more": 1},
    ],
)
def test_half_a_policy_is_an_error(change: dict[str, Any]) -> None:
    """Nothing is optional, no list is empty, and what covers the machine cannot be waived."""
    with pytest.raises(ValidationError):
        GpuPolicy.model_validate({**GOOD, **change})


@pytest.mark.parametrize("field", GOOD)
def test_every_field_must_be_there(field: str) -> None:
    """One is left out, and the error names it."""
    with pytest.raises(ValidationError, match=field):
        GpuPolicy.model_validate({name: value for name, value in GOOD.items() if name != field})


def test_versions_compare_as_numbers() -> None:
    """Text would set 550.100 below 550.90; what is no number is below all."""
    assert numbers("550.90.07") < numbers("550.90.12") < numbers("550.100") < numbers("580.1")
    assert numbers("590.12") < numbers("590.12.01")
    for text in ("r550.1", "550..1", "550.-1", "550.\u0661", "550." + "9" * 5000, ""):
        assert numbers(text) < numbers("0")
