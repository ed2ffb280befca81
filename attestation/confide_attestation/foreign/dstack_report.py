"""Parse the attestation report that dstack's providers publish (Phala, NEAR, RedPill); makes no trust claim.

Source: Dstack-TEE/vllm-proxy `quote.py`, nearai/inference-proxy `attestation.rs`, nearai/cloud-api.
Makers differ: lists and objects may be there as themselves or as their JSON text. Other fields are ignored.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from confide_attestation.foreign.fields import malformed, read_hex, read_json, read_object, read_text

MAX_REPORTS = 64
ADDRESS_BYTES = {"ecdsa": 20, "ed25519": 32}


@dataclass(frozen=True)
class DstackReport:
    """One enclave's report. Everything in it is the sender's word until it is judged."""

    quote: bytes
    quote_again: bytes | None
    signing_algo: str
    signing_address: bytes
    signing_key: bytes | None
    request_nonce: bytes | None
    tls_fingerprint: bytes | None
    nvidia_payload: bytes | None = field(repr=False)
    event_log: bytes | None = field(repr=False)
    app_compose: str | None = field(repr=False)
    compose_hashes: tuple[bytes, ...] = ()


def is_dstack(tree: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Say whether a document is of this kind at all."""
    known = ("intel_quote", "all_attestations", "model_attestations", "gateway_attestation")
    return isinstance(tree, dict) and any(name in tree for name in known)


def parse_dstack(data: bytes) -> dict[str, DstackReport]:
    """Parse every enclave's report of one answer by name: `report`, `gateway`, `model0` …, `node0` ….

    A node that repeats the report at the top is left out. Raises: EvidenceMalformed.
    """
    return parse_reports(read_json(data))


def parse_reports(tree: Any) -> dict[str, DstackReport]:  # noqa: ANN401 - any JSON value
    if not is_dstack(tree):
        raise malformed("expected a dstack attestation report (JSON with intel_quote), found another document")
    found: list[tuple[str, Any]] = []
    if "intel_quote" in tree:
        found.append(("report", tree))
    if tree.get("gateway_attestation") is not None:
        found.append(("gateway", tree["gateway_attestation"]))
    for name, listed in (("model", "model_attestations"), ("node", "all_attestations")):
        each = tree.get(listed)
        if each is not None and not isinstance(each, list):
            raise malformed(f"{listed} is no list")
        found += [(f"{name}{number}", item) for number, item in enumerate(each or ())]
    if len(found) > MAX_REPORTS:
        raise malformed(f"there are more than {MAX_REPORTS} reports in it")
    reports: dict[str, DstackReport] = {}
    for name, item in found:
        report = _report(read_object(item, name), name)
        if report not in reports.values():
            reports[name] = report
    if not reports:
        raise malformed("there is no report in it")
    return reports


def _report(tree: Mapping[str, Any], name: str) -> DstackReport:
    quote, address = read_hex(tree, "intel_quote"), read_hex(tree, "signing_address")
    if quote is None:
        raise malformed(f"{name} has no intel_quote")
    if address is None:
        raise malformed(f"{name} has no signing_address")
    algo = (read_text(tree, "signing_algo") or "ecdsa").lower()
    if len(address) != ADDRESS_BYTES.get(algo):
        raise malformed(f"{name}: {len(address)} bytes of signing_address are not of signing_algo {algo[:16]!r}")
    info = _inner(tree, "info")
    tcb_info = _inner(info, "tcb_info")
    stated = (read_hex(each, "compose_hash", 32) for each in (info, tcb_info))
    return DstackReport(
        quote=quote,
        quote_again=read_hex(tree, "quote"),
        signing_algo=algo,
        signing_address=address,
        signing_key=read_hex(tree, "signing_public_key"),
        request_nonce=read_hex(tree, "request_nonce", 32),
        tls_fingerprint=read_hex(tree, "tls_cert_fingerprint", 32),
        nvidia_payload=_json_text(tree, "nvidia_payload"),
        event_log=_json_text(tree, "event_log") or _json_text(tcb_info, "event_log"),
        app_compose=read_text(tcb_info, "app_compose"),
        compose_hashes=tuple(each for each in stated if each is not None),
    )


def _inner(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object that may be there as its JSON text; empty if it is absent."""
    value = tree.get(name)
    if isinstance(value, str) and value:
        value = read_json(value.encode())
    return {} if value is None or value == "" else read_object(value, name)


def _json_text(tree: Mapping[str, Any], name: str) -> bytes | None:
    """Return the JSON text of a field that may be there as itself; None if it is absent or empty."""
    value = tree.get(name)
    if not value:
        return None
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
