"""Fields of Intel's collateral in dcap-qvl's QuoteCollateralV3 form."""

import re

from tests.conformance import Field, Layout, checks
from tests.conformance.spans import Span, fill, json_spans, unescaped

# The library reads documents and certificates before it verifies them, and more strictly than we do.
_LIBRARY = "dcap_qvl"
_FORM = checks("collateral_format")
_INFO = _FORM | checks("tcb_info_signature", _LIBRARY)
_IDENTITY = _FORM | checks("qe_identity_signature", _LIBRARY)
# Documents' members that are judged before, or beside, the signature.
_MEMBERS = {
    "tcb_info": {
        "issueDate": _INFO | checks("tcb_info_not_yet_valid"),
        "nextUpdate": _INFO | checks("tcb_info_expired"),
        "id": _INFO | checks("tcb_info_type"),
        "version": _INFO | checks("tcb_info_type"),
        "tcbType": _INFO | checks("tcb_info_type"),
        "tcbStatus": _INFO | checks("tcb_status_unknown"),
    },
    "qe_identity": {
        "issueDate": _IDENTITY | checks("qe_identity_not_yet_valid"),
        "nextUpdate": _IDENTITY | checks("qe_identity_expired"),
        "id": _IDENTITY | checks("qe_identity_id"),
        "version": _IDENTITY | checks("qe_identity_id"),
    },
}
_LIST = _FORM | checks("crl_format", "crl_sig", "crl_missing_for_ca")
_SIGNER = _FORM | checks("tcb_signing_chain", _LIBRARY)
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_UNREAD = {
    "pck_certificate_chain": "the quote carries its own certificates; this place for others is not read",
    "pck_crl_issuer_chain": "the list is verified under the CA certificate in the quote; this copy is not read",
}
_ROOT = "the pinned root is used; the copy in the chain, and what follows the signer, is not read"
_SPACE = "space between the lines of PEM text"


def collateral(data: bytes) -> Layout:
    text = data.decode("latin-1")
    fields: list[Field] = []
    for span in json_spans(text):
        fields += _part(str(span.path[0]), text, span)
    return fill(fields, len(data), Field("form", 0, 0, _FORM))


def _part(name: str, text: str, span: Span) -> list[Field]:
    if span.is_name:
        # A name that is not known is refused, even beside what is not read.
        return [Field(f"{name} (name)", span.start, span.end, _FORM)]
    escaped = text[span.start : span.end]
    if name in _MEMBERS:
        return _document(name, escaped, span.start)
    if name in _UNREAD:
        return [Field(name, span.start, span.end, dont_care=_UNREAD[name])]
    if name.endswith("_signature"):
        named = _INFO if name.startswith("tcb_info") else _IDENTITY
        return [Field(name, span.start, span.end, named, hex_text=True)]
    if name.endswith("_crl"):
        return [Field(name, span.start, span.end, _LIST, hex_text=True)]
    return _chain(name, escaped, span.start)


def _chain(name: str, escaped: str, at: int) -> list[Field]:
    signer = _CERTIFICATE.match(escaped)
    assert signer
    fields, start = [], 0
    for line in re.finditer(r"\\n", signer[0]):
        fields.append(Field(f"{name}.signer", start, line.start(), _SIGNER))
        fields.append(Field(f"{name} (lines)", *line.span(), dont_care=_SPACE))
        start = line.end()
    fields.append(Field(f"{name}.signer", start, signer.end(), _SIGNER))
    fields.append(Field(f"{name}.root", signer.end(), len(escaped), dont_care=_ROOT))
    return [each.moved(at) for each in fields]


def _document(name: str, escaped: str, at: int) -> list[Field]:
    """Lay out the text of a document, which is a JSON string inside the JSON file."""
    text, places = unescaped(escaped)
    every = _INFO if name == "tcb_info" else _IDENTITY
    fields = []
    for span in json_spans(text):
        member = str(next((step for step in reversed(span.path) if isinstance(step, str)), ""))
        named = every if span.is_name else _MEMBERS[name].get(member, every)
        start, end = places[span.start], places[span.end]
        if end > start:
            fields.append(Field(f"{name}.{member}" + (" (name)" if span.is_name else ""), start, end, named))
    return [each.moved(at) for each in fill(fields, len(escaped), Field(f"{name} (form)", 0, 0, every))]
