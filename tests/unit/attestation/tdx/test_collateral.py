"""Reading collateral: its form, one name once, and words for what is something else."""

import json

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.tdx.collateral import parse_collateral

from tests.unit.attestation.tdx.support import genuine, intel, judge


def tree() -> dict[str, object]:
    found: dict[str, object] = json.loads(genuine()[1])
    return found


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "found other text"),
        (b"\xff\xfe\x00", "bytes that are no text"),
        (b"-----BEGIN CERTIFICATE-----\n", "found other text"),
        (b"[]", "another JSON value"),
        (b"{}", "lacks pck_crl_issuer_chain"),
        (b'{"a": 1, "a": 2}', "found other text"),
        (b"[" * 100_000, "found other text"),
        (b" " * ((1 << 20) + 1), "more than 1048576"),
    ],
)
def test_other_files_are_refused(data: bytes, said: str) -> None:
    """One line says what was expected and what was found."""
    with pytest.raises(EvidenceMalformed, match=said) as raised:
        parse_collateral(data)
    assert raised.value.check == "collateral_format"
    assert judge(collateral=data).verdict == "unreadable"


def test_every_part_is_needed_and_no_other_is_known() -> None:
    """A missing part, one of another type, one too many."""
    for name in tree():
        for other in ({k: v for k, v in tree().items() if k != name}, tree() | {name: 5}):
            with pytest.raises(EvidenceMalformed, match=f"lacks {name}"):
                parse_collateral(json.dumps(other).encode())
    with pytest.raises(EvidenceMalformed, match="knows no 'more'"):
        parse_collateral(json.dumps(tree() | {"more": ""}).encode())
    parse_collateral(json.dumps(tree() | {"pck_certificate_chain": None}).encode())


@pytest.mark.parametrize(
    "lie",
    [
        {"issueDate": "today"},
        {"nextUpdate": "2026-13-01T00:00:00Z"},
        {"nextUpdate": 5},
        {"tcbEvaluationDataNumber": "18"},
        {"tcbLevels": {}},
        {"tcbLevels": [{"tcb": {}, "tcbStatus": "UpToDate"}]},
        {"fmspc": None},
    ],
)
def test_documents_are_intels(lie: dict[str, object]) -> None:
    """A field of another type is named."""
    collateral = intel().collateral(tcb_info=intel().tcb_info(**lie))
    with pytest.raises(EvidenceMalformed, match=f"tcb_info is not Intel's document: {next(iter(lie))}"):
        parse_collateral(collateral)


def test_hexadecimal_parts_are_that() -> None:
    """Lists and signatures; a signature has 64 bytes."""
    for name, value, said in (
        ("pck_crl", "zz", "not hexadecimal"),
        ("tcb_info_signature", "00", "has 1 bytes, not 64"),
    ):
        with pytest.raises(EvidenceMalformed, match=said):
            parse_collateral(json.dumps(tree() | {name: value}).encode())


def test_a_name_given_twice_in_a_signed_document_is_refused() -> None:
    """Two readers could read different values; the library reads neither."""
    text = str(tree()["tcb_info"]).replace('"version":3', '"version":3,"version":3')
    result = judge(collateral=json.dumps(tree() | {"tcb_info": text}).encode())
    assert result.verdict == "refused"
    assert [check.id for check in result.failed] == ["dcap_qvl"]
