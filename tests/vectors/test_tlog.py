"""transparency-dev/merkle: RFC 6962 inclusion proofs. Our tree has their shape and its own node label."""

import base64
import hashlib
import json

import pytest
from confide_protocol.audit import disclosure
from confide_protocol.errors import ReceiptInvalid

from tests.shared import shared_path


def test_every_inclusion_proof_gets_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """With RFC 6962's node prefix in place of our label, all 98 published proofs get their verdict."""
    monkeypatch.setattr(
        disclosure, "node_hash", lambda left, right: hashlib.sha256(b"\x01" + left + right).digest()
    )
    paths = sorted(shared_path("vectors", "tlog", "testdata", "inclusion").rglob("*.json"))
    assert len(paths) == 98
    wrong = []
    for path in paths:
        case = json.loads(path.read_text())
        leaf, root = (base64.b64decode(case[name] or "") for name in ("leafHash", "root"))
        proof = [base64.b64decode(step) for step in case["proof"] or []]
        try:
            disclosure.verify_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, root)
            refused = False
        except ReceiptInvalid:
            refused = True
        if refused != case["wantErr"]:
            wrong.append(path.name)
    assert wrong == []
