"""Manifests: the one form of signature, the one form of XML, and every value checked before it is used."""

import time

import pytest
from confide_attestation.nvidia import rim as rim_module
from confide_attestation.nvidia.ids import NvidiaCheck
from confide_attestation.nvidia.rim import JudgedRim, RimKind, judge_rim, looks_like_rim
from confide_attestation.nvidia.xmldsig import MAX_DOCUMENT_BYTES
from confide_attestation.simulated.nvidia import SimulatedVendor, new_key

GOLDEN = {0: (b"\1" * 48,), 3: (b"\2" * 48, b"\3" * 48)}
VERSION = "550.90.07"


def judge(vendor: SimulatedVendor, data: bytes) -> JudgedRim:
    return judge_rim(data, vendor.roots.rim_spki_sha256)


def fault(vendor: SimulatedVendor, data: bytes) -> list[NvidiaCheck]:
    judged = judge(vendor, data)
    assert judged.rim is None
    return list(judged.faults)


def test_sound_manifest_is_read(vendor: SimulatedVendor) -> None:
    """Kind, version, product and active values with their alternatives."""
    for version, edition, kind in (
        (VERSION, "GPU", RimKind.DRIVER),
        ("545.00", "GPU", RimKind.DRIVER),
        ("96.00.9F.00.01", "GPU", RimKind.VBIOS),
        ("96.10.55.00.01", "SWITCH", RimKind.SWITCH_BIOS),
    ):
        judged = judge(vendor, vendor.rim(version, GOLDEN, edition=edition))
        assert judged.faults == {}
        assert judged.rim is not None
        assert (judged.rim.kind, judged.rim.version, judged.rim.product) == (kind, version, "GH100")
        assert judged.rim.golden == GOLDEN


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('index="1"', 'index="0"'),
        ('index="1"', 'index="64"'),
        ('index="1"', 'index="-1"'),
        ('index="1"', 'index="01"'),
        ('index="1"', ""),
        ('index="1"', 'index="1" extra="1"'),
        ('active="True"', 'active="true"'),
        ('active="True"', 'active="1"'),
        ('active="True"', 'active="False"'),
        ('alternatives="2"', 'alternatives="1"'),
        ('alternatives="2"', 'alternatives="3"'),
        ('alternatives="2"', 'alternatives="0"'),
        ('alternatives="2"', 'alternatives="1000000"'),
        ("ns2:Hash1", "Hash1"),
        ("02" * 48, "02" * 47),
        ("02" * 48, "zz" * 48),
        ('size="48"', 'size="32"'),
        ('type="Measurement"', 'type="Other"'),
        ("<ns0:Resource", "<ns0:Other"),
        ('edition="GPU"', 'edition="CPU"'),
        ('edition="GPU"', ""),
        ('colloquialVersion="550.90.07"', 'colloquialVersion="../etc"'),
        ('colloquialVersion="550.90.07"', ""),
        ('product="GH100"', 'product="GB100"'),
        ('ns1:FirmwareManufacturerId="5703"', ""),
        ("<ns0:Payload>", "<ns0:Payload>text"),
        ("<ns0:Payload>", "<ns0:Payload/><ns0:Payload>"),
        ("ns0:Entity", "ns0:Entity2"),
    ],
)
def test_signed_nonsense_is_no_manifest(vendor: SimulatedVendor, old: str, new: str) -> None:
    """Even what the vendor signed must have the form of a manifest."""
    assert fault(vendor, vendor.rim(VERSION, GOLDEN, replacements={old: new})) == [NvidiaCheck.RIM_SCHEMA]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('URI=""', 'URI="#x"'),
        ('URI=""', 'URI="" Id="x"'),
        ('URI=""', ""),
        ("ecdsa-sha384", "ecdsa-sha256"),
        ("ecdsa-sha384", "hmac-sha384"),
        ("xmldsig-more#sha384", "xmldsig-more#sha224"),
        ("#enveloped-signature", "#base64"),
        ("2006/12/xml-c14n11", "2001/10/xml-exc-c14n#"),
        ("</ds:Transforms>", '<ds:Transform Algorithm="http://www.w3.org/2002/06/xmldsig-filter2"/></ds:Transforms>'),
        ("<ds:DigestMethod", "<ds:Other/><ds:DigestMethod"),
        ("</ds:SignedInfo>", '<ds:Reference URI=""/></ds:SignedInfo>'),
        ("<ds:SignedInfo>", '<ds:SignedInfo Id="x">'),
        ('<ns0:Payload>', '<ns0:Payload xml:id="x">'),
    ],
)  # fmt: skip
def test_other_forms_of_signature_are_refused(vendor: SimulatedVendor, old: str, new: str) -> None:
    """What the standard also allows is signed afresh and refused all the same."""
    assert fault(vendor, vendor.rim(VERSION, GOLDEN, replacements={old: new})) == [NvidiaCheck.RIM_FORMAT]


def test_wrapping_and_second_signatures_are_refused(vendor: SimulatedVendor) -> None:
    """A signed manifest in another, a signature that is not last, twice, absent, or with more beside its keys."""
    good = vendor.rim(VERSION, GOLDEN).decode()
    at, end = good.index("<ds:Signature "), good.index("</SoftwareIdentity>")
    signature, body = good[at:end], good[:at]
    opening = good[: good.index(">") + 1]
    for changed in (
        body + "</SoftwareIdentity>",
        body + signature * 2 + "</SoftwareIdentity>",
        opening + signature + good[len(opening) : at] + "</SoftwareIdentity>",
        f"{opening}{good}</SoftwareIdentity>",
        f"{opening}{good}{signature}</SoftwareIdentity>",
        good.replace("<ds:X509Data>", "<ds:KeyValue/><ds:X509Data>"),
        good.replace("<ds:X509Data>", "<ds:X509Data><ds:X509SubjectName>x</ds:X509SubjectName>"),
        good.replace("</ds:KeyInfo>", "</ds:KeyInfo><ds:Object/>"),
        good.replace("</ds:Signature>", "</ds:Signature>text"),
        good.replace("<ds:SignatureValue>", "<ds:SignatureValue>!"),
        good.replace("<ds:X509Certificate>", "<ds:X509Certificate>AAAA", 1),
    ):
        assert fault(vendor, changed.encode()) == [NvidiaCheck.RIM_FORMAT]


def test_markup_that_parsers_act_on_is_refused_at_once(vendor: SimulatedVendor) -> None:
    """Document types, entities, comments, instructions, CDATA, other encodings, size and depth."""
    good = vendor.rim(VERSION, GOLDEN)
    bomb = b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;">]>'
    external = b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
    started = time.perf_counter()
    for changed in (
        bomb + good,
        external + good,
        b"<?xml version='1.0'?>" + good,
        good.replace(b"<ns0:Payload>", b"<ns0:Payload><!-- x -->"),
        good.replace(b"<ns0:Payload>", b"<ns0:Payload><?x?>"),
        good.replace(b"<ns0:Payload>", b"<ns0:Payload><![CDATA[x]]>"),
        good.replace(b"True", b"&#84;rue"),
        good.replace(b"GH100", b"GH10\xc3\xb6"),
        good.decode().encode("utf-16"),
        good + b" " * (256 * 1024),
        b"<SoftwareIdentity>" * 5000,
        b"<SoftwareIdentity>" + b"<a>" * 900 + b"</a>" * 900 + b"</SoftwareIdentity>",
        b"<SoftwareIdentity>" + b"<a/>" * 2000 + b"</SoftwareIdentity>",
        good.replace(b"<ns0:Payload>", b'<ns0:Payload xmlns:x="relative">'),
        good.replace(b"<ns0:Payload>", b'<ns0:Payload xmlns:x="http://www.w3.org/XML/1998/namespace" x:id="a">'),
        b"",
        b"<",
        good[:-1],
    ):
        assert fault(vendor, changed) == [NvidiaCheck.RIM_FORMAT]
    assert time.perf_counter() - started < 5


def test_keys_and_certificates_are_the_vendors(vendor: SimulatedVendor) -> None:
    """Another signer, certificates in another order, fewer, more, or under a look-alike root."""
    leaf, l3, ca, root = vendor.rim_chain
    assert fault(vendor, vendor.rim(VERSION, GOLDEN, key=new_key())) == [NvidiaCheck.RIM_SIG]
    for chain in ((root, ca, l3, leaf), (leaf, ca, l3, root), (l3, ca, root), (leaf, leaf, l3, ca, root), (leaf,)):
        assert NvidiaCheck.RIM_CHAIN in fault(vendor, vendor.rim(VERSION, GOLDEN, chain=chain))
    other = SimulatedVendor(vendor.now_unix_s)
    assert fault(vendor, other.rim(VERSION, GOLDEN)) == [NvidiaCheck.RIM_ROOT_PIN]
    attacker = other.rim_chain[0]
    mixed = other.rim(VERSION, GOLDEN, chain=(attacker, l3, ca, root))
    assert fault(vendor, mixed) == [NvidiaCheck.RIM_CHAIN]


def test_what_was_signed_is_what_is_read(vendor: SimulatedVendor) -> None:
    """Each value and attribute that is changed after signing breaks the signature."""
    good = vendor.rim(VERSION, GOLDEN)
    for old, new in (
        (b"GH100", b"GB100"),
        (b"550.90.07", b"550.90.08"),
        (b"02" * 48, b"04" * 48),
        (b"True", b"False"),
    ):
        assert fault(vendor, good.replace(old, new)) == [NvidiaCheck.RIM_SIG]


def test_a_manifest_is_known_by_its_root() -> None:
    """Other kinds of files are told apart from bad manifests."""
    assert looks_like_rim(b"\n<ns0:SoftwareIdentity ")
    assert looks_like_rim(b"<!DOCTYPE x><SoftwareIdentity>")
    for data in (
        b"",
        b"{}",
        b"<html>",
        b"-----BEGIN CERTIFICATE-----",
        b"SoftwareIdentity",
        b"<SoftwareIdentityX>",
    ):
        assert not looks_like_rim(data)


def test_a_manifest_that_is_too_large_is_not_remembered(vendor: SimulatedVendor) -> None:
    """Refused before anything keeps its bytes."""
    before = rim_module._judge.cache_info().currsize
    for number in range(3):
        judged = judge_rim(b"<" + bytes((number,)) * MAX_DOCUMENT_BYTES, vendor.roots.rim_spki_sha256)
        assert list(judged.faults) == [NvidiaCheck.RIM_FORMAT]
    assert rim_module._judge.cache_info().currsize == before
