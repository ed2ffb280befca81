"""What a person reads of a receipt. Decides nothing; evidence is rendered by `render_transcript`."""

from datetime import UTC, datetime

from confide_protocol import labels
from confide_protocol.receipt import ReceiptClaims


def utc(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def short(digest: bytes) -> str:
    return digest.hex()[:16] + "…"


def render_receipt(claims: ReceiptClaims, *, recomputed: bool = True) -> str:
    """Return one line a claim, each saying what it stands on; `recomputed`: the words were at hand and fit."""
    asked, answered = (
        ("equals what was asked, recomputed here", "equals what came back, recomputed here")
        if recomputed
        else ("of words that were not compared here",) * 2
    )
    sampling = ", ".join(f"{name} {value}" for name, value in sorted(claims.sampling.items())) or "none"
    seed = "" if claims.seed is None else f", seed {claims.seed}"
    rounded = "" if claims.shape == labels.SHAPE_NONE else ", rounded up with the shape"
    parts = f"{claims.message_count} message(s), {claims.chunk_count} chunk(s); each can be disclosed alone"
    rows = {
        "signed by": f"Ed25519, ML-DSA-65 of keyset {short(claims.keyset_digest)}, which the evidence vouches for",
        "request": f"{short(claims.request_commitment)} salted; {asked}",
        "answer": f"{short(claims.response_commitment)} salted; {answered}",
        "transcript": f"{short(claims.transcript_root)} {parts}",
        "ciphertext": f"{short(claims.enc_digest)} of this very request and no other",
        "model": f"{claims.model}, weights and settings in manifest {short(claims.manifest_digest)}",
        "outcome": f"{claims.outcome}, status {claims.status}, shape {claims.shape}, {claims.dialect}",
        "sampling": f"{sampling}{seed} (the enclave's word)",
        "tokens": f"{claims.prompt_tokens} in, {claims.completion_tokens} out (the enclave's word{rounded})",
        "time": f"{utc(claims.issued_unix_s)} (the enclave's clock; proves no time)",
    }
    mark = ["*** SIGNED BY SIMULATED HARDWARE ***"] if claims.simulated else []
    return "\n".join([*mark, *(f"{name:<11}{text}" for name, text in rows.items())])
