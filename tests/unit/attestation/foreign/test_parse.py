"""Parsers of other providers' reports: strict where a lie could hide, and nothing but EvidenceMalformed."""

import base64
import gzip
import json
from typing import Any

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.foreign.dstack_report import parse_dstack
from confide_attestation.foreign.fields import MAX_REPORT_BYTES
from confide_attestation.foreign.tinfoil import MAX_EVIDENCE_BYTES, parse_tinfoil

from tests.fakes.provider import TINFOIL, Provider, tinfoil_keys


@pytest.fixture(scope="module")
def provider() -> Provider:
    return Provider()


@pytest.fixture(scope="module")
def report(provider: Provider) -> dict[str, Any]:
    return provider.dstack()


def dstack(tree: Any) -> Any:
    return parse_dstack(json.dumps(tree).encode())


def tinfoil(tree: Any) -> Any:
    return parse_tinfoil(json.dumps(tree).encode())


def test_reports_of_one_answer_by_their_names(report: dict[str, Any]) -> None:
    """A node that repeats the report at the top is no second one."""
    other = report | {"request_nonce": "11" * 32}
    assert list(dstack(report | {"all_attestations": [report]})) == ["report"]
    assert list(dstack(report | {"all_attestations": [report, other]})) == ["report", "node1"]
    assert list(dstack({"gateway_attestation": report, "model_attestations": [other]})) == ["gateway", "model0"]


@pytest.mark.parametrize(
    "fields",
    [
        {"intel_quote": None},
        {"intel_quote": "xyz"},
        {"intel_quote": 5},
        {"signing_address": None},
        {"signing_address": "0x" + "11" * 32},
        {"signing_algo": "rsa"},
        {"request_nonce": "00"},
        {"tls_cert_fingerprint": "00" * 31},
        {"info": []},
        {"info": "[1]"},
        {"info": {"tcb_info": "{"}},
        {"info": {"tcb_info": {"app_compose": {}}}},
        {"all_attestations": {}},
        {"all_attestations": [5]},
        {"all_attestations": [{}]},
        {"model_attestations": [[]] * 65},
    ],
)
def test_a_report_of_another_form_is_malformed(report: dict[str, Any], fields: dict[str, Any]) -> None:
    """Fields that are judged must be what they are said to be."""
    with pytest.raises(EvidenceMalformed) as caught:
        dstack(report | fields)
    assert caught.value.check == "provider_report_format"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"intel_quote": NaN}',
        b'{"intel_quote": "00", "intel_quote": "01"}',
        b'{"intel_quote": "\\ud800"}',
        b"[" * 100_000,
        b'{"intel_quote":' + b"[" * 40 + b"]" * 40 + b"}",
        b" " * (MAX_REPORT_BYTES + 1),
    ],
)
def test_other_json_and_no_json_are_malformed(data: bytes) -> None:
    """Deep, doubled, too large, no text."""
    for parse in (parse_dstack, parse_tinfoil):
        with pytest.raises(EvidenceMalformed):
            parse(data)


def changed(tree: dict[str, Any], *path: str, value: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(tree))
    at = copy
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return copy  # type: ignore[no-any-return]


def test_tinfoils_own_strictness_is_kept(provider: Provider) -> None:
    """Unknown members, hexadecimal in capitals, base64 in another form, an id twice: malformed."""
    whole = provider.tinfoil()
    key = tinfoil_keys()[0]
    bad = [
        whole | {"more": 1},
        changed(whole, "challenge", "nonce", value=whole["challenge"]["nonce"].upper()),
        changed(whole, "challenge", "nonce", value="0x" + whole["challenge"]["nonce"]),
        changed(whole, "challenge", "report_data_algorithm", value="other"),
        changed(whole, "challenge", "more", value=1),
        changed(whole, "cpu_evidence", "format", value=f"{TINFOIL}/format/other/v1"),
        changed(whole, "cpu_evidence", "report_base64", value="AB=="),
        changed(whole, "cpu_evidence", "report_base64", value=whole["cpu_evidence"]["report_base64"] + "\n"),
        whole | {"crypto_material": ""},
        whole | {"crypto_material": whole["device_evidence"]},
        whole | {"collateral": {}},
        provider.tinfoil(keys=[key, key]),
        provider.tinfoil(keys=[key | {"data": key["data"].upper()}]),
        provider.tinfoil(keys=[key | {"data": "00"}]),
        provider.tinfoil(keys=[key | {"format": f"{TINFOIL}/key/other/v1"}]),
        provider.tinfoil(keys=[key | {"more": "x"}]),
        {"format": f"{TINFOIL}/predicate/attestation/v9"},
        {"format": 5},
    ]
    tinfoil(whole)
    for tree in bad:
        with pytest.raises(EvidenceMalformed):
            tinfoil(tree)


def test_a_body_that_unpacks_without_end_is_malformed() -> None:
    """Gzip is unpacked up to the size of a quote; two members, a cut one and no gzip are none."""
    small = gzip.compress(b"quote")
    for packed in (
        gzip.compress(bytes(50 << 20)),
        small + small,
        small[:-1],
        b"quote",
        gzip.compress(bytes(200_000)),
    ):
        body = base64.b64encode(packed).decode()
        with pytest.raises(EvidenceMalformed):
            tinfoil({"format": f"{TINFOIL}/predicate/tdx-guest/v2", "body": body})
    assert MAX_EVIDENCE_BYTES < 200_000


def test_recorded_answers_of_intels_are_read_strictly(provider: Provider) -> None:
    """Without a chain, without an address, not as Intel writes them."""
    for at, name, value in (
        (0, "headers", {}),
        (0, "headers", {"Tcb-Info-Issuer-Chain": [5]}),
        (0, "url", "http://[/tcb"),
        (0, "body_base64", base64.b64encode(b'{"signature":"00","tcbInfo":{}}').decode()),
        (0, "body_base64", base64.b64encode(b'{"tcbInfo":{}}').decode()),
        (1, "body_base64", "!"),
    ):
        pcs = provider.intel_pcs()
        pcs["data"]["responses"][at][name] = value
        with pytest.raises(EvidenceMalformed):
            tinfoil(provider.tinfoil(collateral=[pcs]))
