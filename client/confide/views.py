"""What an application shows its own users of an attestation and of a receipt. Decides nothing, holds no words."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from confide_attestation.result import AttestationResult, Check, Outcome, Verdict
from confide_attestation.sections import sections
from confide_attestation.transcript_html import render_page
from confide_attestation.transcript_text import limits, utc, verdict_line

if TYPE_CHECKING:
    from confide_protocol.receipt import ReceiptClaims


@dataclass(frozen=True, repr=False)
class Attestation:
    """An appraisal, for showing: what was checked, until when it holds, what it does not show."""

    result: AttestationResult

    def __repr__(self) -> str:
        return f"<Attestation {self.summary}>"

    @property
    def accepted(self) -> bool:
        return self.result.verdict is Verdict.ACCEPTED

    @property
    def simulated(self) -> bool:
        """Whether this proves nothing about any real machine. Show it whenever it is true."""
        return self.result.simulated

    @property
    def verdict(self) -> Verdict:
        return self.result.verdict

    @property
    def checks(self) -> tuple[Check, ...]:
        return self.result.checks

    @property
    def failed(self) -> tuple[Check, ...]:
        return self.result.failed

    @property
    def claims(self) -> Mapping[str, Mapping[str, str | int | bool]]:
        return self.result.claims

    @property
    def model(self) -> str | None:
        return self.result.keyset.manifest.model if self.result.keyset else None

    @property
    def models(self) -> tuple[str, ...]:
        """The names by which requests may ask for one."""
        return tuple(each.model for each in self.result.keyset.manifest.models) if self.result.keyset else ()

    @property
    def platform(self) -> str | None:
        return self.result.keyset.manifest.platform if self.result.keyset else None

    @property
    def valid_until_unix_s(self) -> int | None:
        return self.result.keyset.valid_until_unix_s if self.result.keyset else None

    @property
    def summary(self) -> str:
        """One line for a person."""
        return verdict_line(self.result)

    @cached_property
    def not_shown(self) -> tuple[str, ...]:
        """What nobody may conclude from this, each in a line."""
        return limits(self.result)

    def as_dict(self) -> dict[str, Any]:
        """Return the whole as JSON's types; digests in hex, times in seconds since 1970."""
        keyset = self.result.keyset
        return {
            "verdict": str(self.verdict),
            "accepted": self.accepted,
            "simulated": self.simulated,
            "summary": self.summary,
            "policy": {"id": self.result.policy_id, "sha256": _hex(self.result.policy_digest)},
            "judged_at": self.result.judged_at_unix_s,
            "valid_until": self.valid_until_unix_s,
            "model": self.model,
            "models": list(self.models),
            "platform": self.platform,
            "release": keyset.manifest.release if keyset else None,
            "keyset_sha256": _hex(keyset.keyset.digest) if keyset else None,
            "manifest_sha256": _hex(keyset.manifest.digest) if keyset else None,
            "sections": [
                {
                    "title": section.title,
                    "passed": not any(check.outcome is Outcome.FAIL for check in section.checks),
                    "checks": [
                        {"id": check.id, "outcome": str(check.outcome), "detail": check.detail}
                        for check in section.checks
                    ],
                }
                for section in sections(self.result.checks)
            ],
            "claims": {group: dict(claims) for group, claims in self.claims.items()},
            "not_shown": list(self.not_shown),
        }

    def as_html(self, title: str = "") -> str:
        """Return a page that stands alone: no script, nothing fetched."""
        return render_page(self.result, title=title)


def receipt_dict(claims: "ReceiptClaims") -> dict[str, Any]:
    """Return a verified receipt's claims as JSON's types; `issued` is the enclave's clock and proves no time."""
    return {
        "verified": True,
        "simulated": claims.simulated,
        "model": claims.model,
        "outcome": claims.outcome,
        "status": claims.status,
        "issued": claims.issued_unix_s,
        "issued_text": f"{utc(claims.issued_unix_s)} by the enclave's clock",
        "prompt_tokens": claims.prompt_tokens,
        "completion_tokens": claims.completion_tokens,
        "engine_mode": claims.engine_mode,
        "sampling": dict(sorted(claims.sampling.items())),
        "seed": claims.seed,
        "shape": claims.shape,
        "suite": claims.suite,
        "dialect": claims.dialect,
        "messages": claims.message_count,
        "chunks": claims.chunk_count,
        "keyset_sha256": _hex(claims.keyset_digest),
        "statement_sha256": _hex(claims.statement_digest),
        "manifest_sha256": _hex(claims.manifest_digest),
        "request_commitment": _hex(claims.request_commitment),
        "response_commitment": _hex(claims.response_commitment),
        "transcript_root": _hex(claims.transcript_root),
        "sealed_request_sha256": _hex(claims.enc_digest),
    }


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()
