"""`confide verify air`: read an Attested Inference Receipt v1 that another provider's enclave issued."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
from confide_attestation.result import AttestationResult, Check, Outcome, Verdict
from confide_protocol.audit.air import MAX_AIR_BYTES, AirPolicy, check_air, verify_air
from confide_protocol.errors import ReceiptInvalid

from confide.cli.verify import FILE, Run, finish, read_file, read_hex, run_options, stop

LAYERS: Final = {
    "air_parse": "a tagged COSE_Sign1 over AIR's closed map of claims",
    "air_alg": "EdDSA over a CWT",
    "air_signature": "signed by the given key",
    "air_claims": "every claim is of its type and range",
    "air_policy": "the receipt says what was demanded",
}

LIMITS: Final = (
    "whose key it is, nor the attestation document that the receipt names",
    "what was asked and answered: its hashes are bare, and fit whatever can be guessed",
)


@click.command(short_help="Read an AIR v1 receipt of another provider.")
@click.argument("receipt", type=FILE)
@click.option("--key", required=True, metavar="HEX", help="The issuer's raw Ed25519 key, which you trust already.")
@click.option("--nonce", metavar="HEX", help="Demand this nonce.")
@click.option("--model-hash", metavar="HEX", help="Demand this model.")
@click.option("--max-age", type=click.IntRange(min=0), metavar="SECONDS", help="Refuse an older receipt.")
@run_options()
def air(
    receipt: Path,
    key: str,
    nonce: str | None,
    model_hash: str | None,
    max_age: int | None,
    run: Run,
) -> None:
    """Verify RECEIPT (COSE_Sign1) under --key and print its claims.

    Does not judge whose key it is, nor the attestation document that the receipt names. AIR hashes request and
    answer bare: whoever has the receipt can test guesses of short ones.
    """
    public_key = read_hex("--key", key, 32)
    policy = AirPolicy(
        nonce=None if nonce is None else read_hex("--nonce", nonce),
        model_hash=None if model_hash is None else read_hex("--model-hash", model_hash),
        max_age_s=max_age,
    )
    data, claims, fault = read_file(receipt, MAX_AIR_BYTES), None, None
    try:
        claims = verify_air(data, public_key)
        check_air(claims, policy, now_unix_s=run.now_unix_s)
    except ReceiptInvalid as refused:
        fault = refused
    if fault is not None and fault.part == "parse":
        stop(f"{receipt}: air_parse: {fault}")
    shown = {} if claims is None else _plain(asdict(claims))
    result = AttestationResult(
        verdict=Verdict.AUTHENTIC if fault is None else Verdict.REFUSED,
        checks=_checks(fault),
        claims={"air": shown},
        simulated=False,
        policy_id=None,
        policy_digest=None,
        judged_at_unix_s=run.now_unix_s,
    )
    for name, value in () if run.as_json else shown.items():
        click.echo(f"{name}: {value!r}")
    finish(result, run, {}, what=receipt, notes=LIMITS)


def _checks(fault: ReceiptInvalid | None) -> tuple[Check, ...]:
    """List the layers in order: those before the fault passed, those after it were not reached."""
    checks, reached = [], True
    for check_id, holds in LAYERS.items():
        if not reached:
            checks.append(Check(check_id, Outcome.SKIP, "not reached: an earlier check failed"))
        elif fault is not None and check_id == f"air_{fault.part}":
            checks.append(Check(check_id, Outcome.FAIL, str(fault)))
            reached = False
        else:
            checks.append(Check(check_id, Outcome.PASS, holds))
    return tuple(checks)


def _plain(claims: Mapping[str, object], prefix: str = "") -> dict[str, str | int | bool]:
    """Flatten claims for people: bytes as hex, what stands in a map under both names."""
    shown: dict[str, str | int | bool] = {}
    for name, value in claims.items():
        if isinstance(value, Mapping):
            shown |= _plain(value, f"{prefix}{name}.")
        elif isinstance(value, bytes):
            shown[prefix + name] = value.hex()
        elif isinstance(value, str | int):
            shown[prefix + name] = value
    return shown
