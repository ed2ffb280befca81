"""`confide verify air`: read an Attested Inference Receipt v1 that another provider's enclave issued."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
from confide_attestation.result import Check, Outcome
from confide_protocol.audit.air import MAX_AIR_BYTES, AirClaims, AirPolicy, check_air, verify_air
from confide_protocol.errors import ReceiptInvalid

from confide.cli.verify import FILE, at_option, json_option, read_file, stop

LAYERS: Final = {
    "air_parse": "a tagged COSE_Sign1 over AIR's closed map of claims",
    "air_alg": "EdDSA over a CWT",
    "air_signature": "signed by the given key",
    "air_claims": "every claim is of its type and range",
    "air_policy": "the receipt says what was demanded",
}


@click.command(short_help="Read an AIR v1 receipt of another provider.")
@click.argument("receipt", type=FILE)
@click.option("--key", required=True, metavar="HEX", help="The issuer's raw Ed25519 key, which you trust already.")
@click.option("--nonce", metavar="HEX", help="Demand this nonce.")
@click.option("--model-hash", metavar="HEX", help="Demand this model.")
@click.option("--max-age", type=click.IntRange(min=0), metavar="SECONDS", help="Refuse an older receipt.")
@at_option
@json_option
def air(
    receipt: Path,
    key: str,
    nonce: str | None,
    model_hash: str | None,
    max_age: int | None,
    at: int | None,
    as_json: bool,
) -> None:
    """Verify RECEIPT (COSE_Sign1) under --key and print its claims.

    Does not judge whose key it is, nor the attestation document that the receipt names. AIR hashes request and
    answer bare: whoever has the receipt can test guesses of short ones.
    """
    public_key = _hex("--key", key, 32)
    policy = AirPolicy(
        nonce=None if nonce is None else _hex("--nonce", nonce),
        model_hash=None if model_hash is None else _hex("--model-hash", model_hash),
        max_age_s=max_age,
    )
    data, claims, fault = read_file(receipt, MAX_AIR_BYTES), None, None
    try:
        claims = verify_air(data, public_key)
        check_air(claims, policy, now_unix_s=int(time.time()) if at is None else at)
    except ReceiptInvalid as refused:
        fault = refused
    if fault is not None and fault.part == "parse":
        stop(f"{receipt}: air_parse: {fault}")
    checks = _checks(fault)
    if as_json:
        tree = {
            "verdict": "authentic" if fault is None else "refused",
            "appraised": False,
            "checks": [{"id": c.id, "outcome": c.outcome.value, "detail": c.detail} for c in checks],
            "claims": {"air": {} if claims is None else _plain(claims)},
        }
        click.echo(json.dumps(tree))
    else:
        for check in checks:
            click.echo(f"{check.outcome} {check.id} — {check.detail}")
        for name, value in () if claims is None else _plain(claims).items():
            click.echo(f"{name}: {value!r}")
        click.echo("authentic, NOT appraised" if fault is None else "refused")
    sys.exit(0 if fault is None else 1)


def _checks(fault: ReceiptInvalid | None) -> list[Check]:
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
    return checks


def _plain(claims: AirClaims) -> dict[str, object]:
    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        return value.hex() if isinstance(value, bytes) else value

    return {name: plain(value) for name, value in asdict(claims).items() if value is not None}


def _hex(option: str, text: str, length: int | None = None) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if not value or (length is not None and len(value) != length):
        stop(f"{option}: needs {f'{2 * length} ' if length else ''}hex digits")
    return value
