"""What a receipt says of one exchange (SPEC 9)."""

from collections.abc import Mapping

from confide_protocol import labels
from confide_protocol.hpke import Suite
from confide_protocol.keyset import Manifest
from confide_protocol.receipt import ReceiptClaims
from confide_protocol.shape import Shape
from confide_protocol.transcript import TranscriptDigests

from confide_enclave.api import Answer
from confide_enclave.engine import Sampling
from confide_enclave.keys import Generation


def make_claims(
    generation: Generation,
    manifest: Manifest,
    answer: Answer,
    digests: TranscriptDigests,
    *,
    enc_digest: bytes,
    statement_digest: bytes | None,
    client_asserted: Mapping[str, bytes | None],
    request_commitment: bytes,
    suite: Suite,
    shape: Shape,
    issued_unix_s: int,
    dialect: str = labels.DIALECT_CHUNKED_OHTTP,
) -> ReceiptClaims:
    """Put the claims together; a statement that was not issued for this keyset is left out, never repeated.

    Where no model answered, the manifest's first is named.
    """
    record, sampling = answer.record, answer.record.sampling
    model = manifest.find(record.model) or manifest
    known = statement_digest is not None and generation.issued(statement_digest)
    return ReceiptClaims(
        keyset_digest=generation.digest,
        statement_digest=statement_digest if known else None,
        manifest_digest=manifest.digest,
        request_commitment=request_commitment,
        response_commitment=digests.commitment,
        transcript_root=digests.root,
        chunk_count=digests.chunk_count,
        message_count=digests.message_count,
        enc_digest=enc_digest,
        model=model.model,
        outcome=record.outcome,
        status=answer.status,
        sampling=sampling_claims(sampling) if sampling else {},
        seed=sampling.seed if sampling else None,
        engine_mode=str(model.engine["mode"]),
        suite=suite.name,
        shape=shape.name,
        prompt_tokens=shape.bucket_tokens(record.prompt_tokens),
        completion_tokens=shape.bucket_tokens(record.completion_tokens),
        issued_unix_s=issued_unix_s,
        simulated=generation.keyset.simulated,
        client_asserted={name: value for name, value in client_asserted.items() if value is not None},
        dialect=dialect,
    )


def sampling_claims(sampling: Sampling) -> dict[str, str | int]:
    """Name every parameter that decides the answer; of those that are content, only that and how many there are.

    Stop strings, biases, schemas and tools stand in the request, to which the receipt commits with a salt: a digest
    of them here would let whoever holds the receipt alone test a guess.
    """
    floats = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
    return {name: repr(float(getattr(sampling, name))) for name in floats} | {
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_tokens,
        "n": sampling.choices,
        "best_of": sampling.candidates,
        "stop_count": len(sampling.stop),
        "logit_bias_count": len(sampling.logit_bias),
        "constrained": int(bool(sampling.grammar)),
    }
