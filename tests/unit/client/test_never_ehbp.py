"""Our own clients never fall back to EHBP: they know no way to it, and no receipt of it satisfies them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from confide_protocol import labels
from confide_protocol.errors import Malformed, ReceiptInvalid
from confide_protocol.receipt import check_receipt, parse_claims

from tests.fakes.receipts import CLAIMS, EXPECTED

ROOT = Path(__file__).resolve().parents[3]
USES = re.compile(r"PATH_EHBP|FIELD_EHBP|hpke-keys|ehbp-encapsulated|\.ehbp_?[kK]ey")
# The auditor shows the key; nothing there seals.
SHOWS = ["appraise.ts"]


def test_no_client_of_ours_knows_the_way() -> None:
    """Neither the Python package nor the TypeScript one names EHBP's path or fields; its key is only shown."""
    sources = [*(ROOT / "client" / "confide").rglob("*.py"), *(ROOT / "client" / "js" / "src").rglob("*.ts")]
    assert len(sources) > 20
    assert [path.name for path in sources if USES.search(path.read_text())] == SHOWS


def test_a_receipt_of_it_is_of_another_exchange() -> None:
    """Equal in all else, it is refused for its dialect."""
    check_receipt(CLAIMS, EXPECTED)
    with pytest.raises(ReceiptInvalid) as fault:
        check_receipt(replace(CLAIMS, dialect=labels.DIALECT_EHBP), EXPECTED)
    assert fault.value.part == "dialect"


def test_only_a_receipt_of_it_may_name_no_statement() -> None:
    """EHBP has no place for a statement; where there is one, an answer names it."""
    foreign = replace(CLAIMS, dialect=labels.DIALECT_EHBP, statement_digest=None, client_asserted={})
    assert parse_claims(foreign.encoded) == foreign
    with pytest.raises(Malformed):
        parse_claims(replace(CLAIMS, statement_digest=None).encoded)
