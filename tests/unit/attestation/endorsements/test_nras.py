"""NVIDIA's service is asked in its own form, and what it answers is what the verifier takes."""

import base64
import json

import pytest
from confide_attestation.errors import EndorsementsUnavailable, EvidenceMalformed
from confide_attestation.nvidia.device import Arch
from confide_attestation.nvidia.nras import verify_nras
from confide_attestation.result import Verdict
from confide_attestation.simulated.nvidia import SimulatedDevice
from confide_endorsements.http import Http
from confide_endorsements.nvidia import ask_nras

from tests.fakes.nras import NONCE, Nras
from tests.fakes.nras import NOW as THEN
from tests.fakes.vendors import Reply, Vendors

pytestmark = pytest.mark.anyio


async def test_tokens_and_keys_are_accepted(http: Http, vendors: Vendors, device: SimulatedDevice) -> None:
    """The request holds report, chain, architecture and the nonce that the report answers."""
    service, bodies = Nras(), []

    def judge(body: bytes) -> Reply:
        bodies.append(json.loads(body))
        return Reply(body=service.bundle())

    vendors.routes |= {"/v4/attest/gpu": judge, "/.well-known/jwks.json": Reply(body=service.jwks)}
    evidence = device.evidence(NONCE)
    answer = await ask_nras(http, [evidence], vendors.url)
    assert verify_nras(answer.tokens, answer.jwks, now_unix_s=THEN, nonce=NONCE).verdict is Verdict.AUTHENTIC
    (body,) = bodies
    assert (body["arch"], body["nonce"]) == ("HOPPER", NONCE.hex())
    assert base64.b64decode(body["evidence_list"][0]["evidence"]) == evidence.report
    assert base64.b64decode(body["evidence_list"][0]["certificate"]) == evidence.chain


async def test_switches_have_a_place_of_their_own(http: Http, vendors: Vendors, device: SimulatedDevice) -> None:
    """And are never mixed with GPUs, nor one nonce with another."""
    service, switch = Nras(), SimulatedDevice(device.vendor, Arch.LS10)
    vendors.routes |= {
        "/v4/attest/switch": Reply(body=service.bundle()),
        "/.well-known/jwks.json": Reply(body=service.jwks),
    }
    await ask_nras(http, [switch.evidence(NONCE)], vendors.url)
    assert vendors.asked == ["/v4/attest/switch", "/.well-known/jwks.json"]
    for mixed in (
        [switch.evidence(NONCE), device.evidence(NONCE)],
        [device.evidence(NONCE), device.evidence(bytes(32))],
        [],
    ):
        with pytest.raises(EvidenceMalformed, match="one nonce"):
            await ask_nras(http, mixed, vendors.url)
    assert len(vendors.asked) == 2


@pytest.mark.parametrize(
    ("tokens", "jwks"),
    [
        (Reply(body=b"CANARY"), None),
        (Reply(400, b'{"error": "CANARY"}'), None),
        (Reply(body=b'[["JWT", "a.b.c"], {}]'), None),
        (None, Reply(body=b"CANARY")),
        (None, Reply(404)),
        (None, Reply(body=b'{"keys": []}')),
    ],
)
async def test_what_is_no_answer_is_named(
    http: Http, vendors: Vendors, device: SimulatedDevice, tokens: Reply | None, jwks: Reply | None
) -> None:
    """By URL, never by its bytes."""
    service = Nras()
    vendors.routes |= {
        "/v4/attest/gpu": tokens or Reply(body=service.bundle()),
        "/.well-known/jwks.json": jwks or Reply(body=service.jwks),
    }
    with pytest.raises(EndorsementsUnavailable) as fault:
        await ask_nras(http, [device.evidence(NONCE)], vendors.url)
    assert vendors.asked[-1] in str(fault.value)
    assert "CANARY" not in str(fault.value)
