"""Verify the one form of XML signature that NVIDIA's reference manifests have, and return exactly what it covers.

Source: W3C XML Signature Syntax and Processing 1.1, Canonical XML 1.1; measured on 35 real manifests. Everything
that the standard also allows (references by id, XPath, other algorithms, keys beside certificates) is refused, and
document types, entities, comments, processing instructions and CDATA before a parser sees them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from lxml import etree

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.certificates import strict_base64, verify_raw

MAX_DOCUMENT_BYTES = 256 * 1024
MAX_DEPTH = 8
MAX_ELEMENTS = 1024
_DS = "{http://www.w3.org/2000/09/xmldsig#}"
_C14N11 = "http://www.w3.org/2006/12/xml-c14n11"
_ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_ECDSA_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"
# Of a document without these, Canonical XML 1.0 and 1.1 are the same: both differ on xml: attributes alone.
_FORBIDDEN = (
    (b"<!", "a document type, entity, comment or CDATA"),
    (b"<?", "a processing instruction or XML declaration"),
    (b"&", "an entity or character reference"),
    (b"\r", "a carriage return"),
    (b"\0", "a zero byte"),
    (b"xml:", "an attribute of the xml: namespace"),
    (b"/XML/1998/namespace", "the xml: namespace by another name"),
)


@dataclass(frozen=True)
class SignedDocument:
    """A document split at its signature. `covered` is canonical: the bytes whose digest the signature names."""

    covered: bytes
    certificates: tuple[bytes, ...]
    digest: bytes
    signed_info: bytes
    signature: bytes

    def holds_under(self, key: ec.EllipticCurvePublicKey) -> bool:
        """Say whether the signature covers `covered` and was made by `key`. Does not check: whose key that is."""
        return hashlib.sha384(self.covered).digest() == self.digest and verify_raw(
            key, self.signature, self.signed_info
        )


def parse_strict(data: bytes) -> etree._Element:
    """Parse plain XML: elements, attributes, text. Raises: EvidenceMalformed."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise EvidenceMalformed(f"an XML document of {len(data)} bytes is too large; at most {MAX_DOCUMENT_BYTES}")
    if not data.isascii():
        raise EvidenceMalformed("the XML document is not ASCII")
    for mark, name in _FORBIDDEN:
        if mark in data:
            raise EvidenceMalformed(f"the XML document has {name}, which none of its kind has")
    if data.count(b"<") > 3 * MAX_ELEMENTS:
        raise EvidenceMalformed("the XML document has too many elements")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise EvidenceMalformed("not well-formed XML") from None
    _check_shape(root)
    return root


def _check_shape(root: etree._Element) -> None:
    level, depth, count = [root], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > MAX_DEPTH or count > MAX_ELEMENTS:
            raise EvidenceMalformed("the XML document is too deep or too large")
        level = [child for element in level for child in element]


def split_signed(root: etree._Element) -> SignedDocument:
    """Take a document apart whose last child is its only signature. The tree is used up.

    Raises: EvidenceMalformed if the signature has any other form than NVIDIA's.
    """
    signatures = list(root.iter(f"{_DS}Signature"))
    if len(signatures) != 1 or len(root) == 0 or root[-1] is not signatures[0]:
        raise EvidenceMalformed("the last child of the root is not the only signature")
    signature = signatures[0]
    info, value, key_info = _children(signature, "SignedInfo", "SignatureValue", "KeyInfo")
    digest = _check_signed_info(info)
    (x509_data,) = _children(key_info, "X509Data")
    if any(child.tag != f"{_DS}X509Certificate" for child in x509_data):
        raise EvidenceMalformed("the signature's X509Data holds more than certificates")
    signed_info = _canonical(info)
    certificates = tuple(_base64(child) for child in x509_data)
    signature_value = _base64(value)
    _cut(root, signature)
    return SignedDocument(
        covered=_canonical(root),
        certificates=certificates,
        digest=digest,
        signed_info=signed_info,
        signature=signature_value,
    )


def _canonical(element: etree._Element) -> bytes:
    try:
        return etree.tostring(element, method="c14n", exclusive=False, with_comments=False)
    except etree.LxmlError:
        # Namespaces with relative names have no canonical form.
        raise EvidenceMalformed("the XML document has no canonical form") from None


def _check_signed_info(info: etree._Element) -> bytes:
    """Demand the one form, and return the digest that it names."""
    canonicalization, method, reference = _children(info, "CanonicalizationMethod", "SignatureMethod", "Reference")
    _algorithm(canonicalization, _C14N11)
    _algorithm(method, _ECDSA_SHA384)
    whole = [("URI", "")]
    if reference.items() != whole:
        raise EvidenceMalformed("the signature does not refer to the whole document")
    transforms, digest_method, digest_value = _children(
        reference, "Transforms", "DigestMethod", "DigestValue", attributes=whole
    )
    enveloped, canonical = _children(transforms, "Transform", "Transform")
    _algorithm(enveloped, _ENVELOPED)
    _algorithm(canonical, _C14N11)
    _algorithm(digest_method, _SHA384)
    return _base64(digest_value)


def _children(
    parent: etree._Element, *names: str, attributes: Sequence[tuple[str, str]] = ()
) -> list[etree._Element]:
    """Return the children of `parent`, which must be exactly `names` with nothing but space between."""
    children = list(parent)
    if [child.tag for child in children] != [_DS + name for name in names]:
        raise EvidenceMalformed(f"{etree.QName(parent).localname} does not hold exactly {', '.join(names)}")
    if (parent.text or "").strip() or any((child.tail or "").strip() for child in children):
        raise EvidenceMalformed(f"{etree.QName(parent).localname} holds text")
    if parent.items() != list(attributes):
        raise EvidenceMalformed(f"{etree.QName(parent).localname} has other attributes than it should")
    return children


def _algorithm(element: etree._Element, name: str) -> None:
    if element.items() != [("Algorithm", name)] or len(element) or (element.text or "").strip():
        raise EvidenceMalformed(f"{etree.QName(element).localname} is not {name}, or has parameters")


def _base64(element: etree._Element) -> bytes:
    if len(element) or element.attrib:
        raise EvidenceMalformed(f"{etree.QName(element).localname} holds more than base64")
    return strict_base64("".join((element.text or "").split()).encode())


def _cut(root: etree._Element, signature: etree._Element) -> None:
    """Remove the signature but not the text behind it, which it covers."""
    tail = signature.tail or ""
    if tail.strip():
        raise EvidenceMalformed("text follows the signature")
    before = signature.getprevious()
    if before is None:
        root.text = (root.text or "") + tail
    else:
        before.tail = (before.tail or "") + tail
    root.remove(signature)
