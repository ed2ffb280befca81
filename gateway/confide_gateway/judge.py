"""The gateway's own appraisal of a node: availability only, never taken over by a client."""

import time
from pathlib import Path

from confide_attestation.appraise import appraise
from confide_attestation.evidence import parse_bundle
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.result import AttestationResult
from confide_protocol.errors import PolicyError

from confide_gateway.settings import read_file


class PolicyJudge:
    """Judges by one policy from disk, whose own serial is the floor, and by the wall clock."""

    def __init__(self, policy: AppraisalPolicy, *, allow_simulated: bool) -> None:
        self._policy = policy
        self._allow_simulated = allow_simulated

    def __call__(self, data: bytes, nonce: bytes) -> AttestationResult:
        evidence, endorsements = parse_bundle(data)
        return appraise(
            evidence,
            endorsements,
            self._policy,
            now_unix_s=int(time.time()),
            floor=self._policy.serial,
            nonce=nonce,
            allow_simulated=self._allow_simulated,
        )


def load_judge(path: Path, *, allow_simulated: bool) -> PolicyJudge:
    """Read the policy. Raises: ConfigError or PolicyError, for a policy that could accept no node too."""
    policy = load_policy(read_file(path, "policy"), str(path))
    if policy.not_after_unix_s <= time.time():
        raise PolicyError(str(path), "not_after", "has passed, or this machine's clock is off; get a newer policy")
    if policy.kind == "simulated" and not allow_simulated:
        raise PolicyError(
            str(path), "kind", "accepts simulated hardware; set allow_simulated = true in gateway.toml"
        )
    return PolicyJudge(policy, allow_simulated=allow_simulated)
