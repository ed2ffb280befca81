"""Make one collateral of Intel's recorded answers; makes no trust claim.

Source: Intel PCS API v4; Tinfoil's `collateral/intel-pcs/v1` (URL, headers and body of each answer).
"""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from confide_attestation.foreign.fields import malformed, read_base64, read_list, read_object, read_text
from confide_attestation.foreign.ids import ForeignCheck
from confide_attestation.strict_json import load_json

MAX_ANSWERS = 16


def collateral_of(answers: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return dcap-qvl's QuoteCollateralV3 as JSON, from recorded answers. Raises: EvidenceMalformed.

    Does not check: anything that Intel signed, that the answers are of one platform.
    """
    parts: dict[str, str] = {}
    for answer in read_list(answers, "the recorded answers of Intel's", MAX_ANSWERS):
        tree = read_object(answer, "a recorded answer of Intel's", ("url", "headers", "body_base64"))
        path, body = _path(read_text(tree, "url") or ""), read_base64(tree, "body_base64")
        headers = {name.lower(): value for name, value in read_object(tree["headers"], "headers").items()}
        if path.endswith("/tcb"):
            parts |= _signed(body, "tcbInfo", "tcb_info", _chain(headers, "tcb-info-issuer-chain"))
        elif path.endswith("/qe/identity"):
            chain = _chain(headers, "sgx-enclave-identity-issuer-chain")
            parts |= _signed(body, "enclaveIdentity", "qe_identity", chain)
        elif path.endswith("/pckcrl"):
            chain = _chain(headers, "sgx-pck-crl-issuer-chain")
            parts |= {"pck_crl": body.hex(), "pck_crl_issuer_chain": chain}
        elif path.endswith((".der", ".crl")):
            parts["root_ca_crl"] = body.hex()
    return json.dumps(parts).encode()


def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        raise malformed("a recorded answer of Intel's has no address") from None


def _signed(body: bytes, name: str, part: str, chain: str) -> dict[str, str]:
    """Cut out the exact text that Intel signed; the answer is `{"name":<signed text>,"signature":"…"}`."""
    tree = read_object(load_json(body, ForeignCheck.REPORT_FORMAT), part, (name, "signature"))
    head, text = f'{{"{name}":'.encode(), body.strip()
    tail = f',"signature":"{tree["signature"]}"}}'.encode()
    if not text.startswith(head) or not text.endswith(tail):
        raise malformed(f"the recorded {part} is not as Intel writes it")
    signed = text[len(head) : -len(tail)]
    return {
        part: signed.decode(),
        f"{part}_signature": str(tree["signature"]),
        f"{part}_issuer_chain": chain,
    }


def _chain(headers: dict[str, Any], name: str) -> str:
    values: Sequence[Any] = headers.get(name) or headers.get(f"sgx-{name}") or ()
    values = [values] if isinstance(values, str) else values
    if not isinstance(values, list) or len(values) != 1 or not isinstance(values[0], str):
        raise malformed(f"a recorded answer of Intel's has no {name}")
    return unquote(values[0])
