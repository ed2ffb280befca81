"""Accepted evidence of simulated hardware in the real formats, signed afresh in every run."""

import hashlib
import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

from confide_attestation.eventlog.ccel import ALG_SHA384, SPEC_ID
from confide_attestation.evidence import VtpmEvidence
from confide_attestation.nvidia.device import Arch
from confide_attestation.policy import SimulatedRoots
from confide_attestation.simulated.amd import SimulatedAmd, SimulatedKeys
from confide_attestation.simulated.azure import SimulatedAzure, make_ak
from confide_attestation.simulated.intel import SimulatedIntel, pem
from confide_attestation.tdx.abi import BodyType, parse_quote
from confide_attestation.vtpm.azure import TdxPlatform
from cryptography import x509

from tests.conformance import Case, Mutation, checks, judges, logs
from tests.conformance.formats_machine import ccel_events
from tests.conformance.parts import P256, P384, make, malleable
from tests.conformance.simulated_nvidia import NONCE, device, nras
from tests.fakes.nras import NOW
from tests.unit.attestation.eventlog import support

DAY_S = 86_400
DATA = bytes(range(64))
Tree = dict[str, Any]


def cpu_cases() -> Iterator[Case]:
    for version, product, signer in (
        (2, "Milan", "VCEK"),
        (3, "Genoa", "VCEK"),
        (4, "Milan", "VLEK"),
        (5, "Turin", "VCEK"),
    ):
        yield snp(version, product, signer)
    for body in (None, BodyType.TD10, BodyType.TD15):
        yield tdx(body)


def cases() -> Iterator[Case]:
    yield from cpu_cases()
    for arch in Arch:
        yield device(arch)
    yield azure(SimulatedAmd.make(NOW, keys=amd_keys("VCEK")))
    yield azure(SimulatedIntel.make(NOW))
    yield dstack_log()
    yield ccel_log()
    for kind, claims_version in (("gpu", "3.0"), ("switch", "2.0")):
        yield nras(kind, claims_version)


@cache
def amd_keys(signer: str) -> SimulatedKeys:
    """Make keys once: RSA is the slow part, and evidence under the same keys is the harder one to tell apart."""
    return SimulatedKeys.generate()


def snp(version: int, product: str, signer: str) -> Case:
    amd = SimulatedAmd.make(NOW, product=product, signer=signer, keys=amd_keys(signer))
    lists = {
        name: amd.crl(issued_unix_s=NOW - age_s, next_update_unix_s=NOW - age_s + 30 * DAY_S)
        for name, age_s in (("new", DAY_S), ("old", 31 * DAY_S))
    }
    old_tcb = {**amd.tcb, "snp": amd.tcb["snp"] - 1}
    former = SimulatedAmd.make(NOW, product=product, signer=signer, keys=amd.keys, tcb=old_tcb)
    ended = amd.certificate(
        "SEV-" + amd.signer,
        "SEV-" + ("VLEK-" if signer == "VLEK" else "") + product,
        amd.keys.vek,
        window=(NOW - 60 * DAY_S, NOW - 30 * DAY_S),
    )
    report = amd.sign_report(DATA, version=version)
    files = {"report": report, "vek": amd.vek, "ask": amd.ask, "ark": amd.ark, "crl": lists["new"]}
    more = [
        malleable("report", report, 0x2E8, 48, P384, "little"),
        Mutation("older", "crl", {"crl": lists["old"]}, checks("crl_expired")),
        Mutation("older", "vek of a former TCB", {"vek": former.vek}, checks("tcb_mismatch")),
        Mutation("older", "vek", {"vek": ended}, checks("vek_validity")),
        Mutation(
            "older",
            "report of a former TCB",
            {"report": former.sign_report(DATA, version=version)},
            checks("tcb_mismatch"),
        ),
        Mutation("swap", "revoked ask", {"crl": _revoking(amd)}, checks("ask_revoked")),
    ]
    if signer == "VCEK":
        stranger = SimulatedAmd.make(NOW, product=product, keys=amd.keys, chip_id=b"\x33" * len(amd.chip_id))
        more += [
            Mutation("swap", "vek of another chip, same key", {"vek": stranger.vek}, checks("hwid_mismatch")),
            Mutation(
                "swap",
                "report of another chip",
                {"report": stranger.sign_report(DATA, version=version)},
                checks("hwid_mismatch"),
            ),
        ]
    roots = judges.only(amd_ark_sha256=amd.ark_sha256.hex())
    return make(
        f"snp/simulated_{product.lower()}_v{version}_{signer.lower()}",
        "snp",
        files,
        judges.snp(roots),
        NOW,
        more=more,
        roots={"root": amd.ark},
    )


def _revoking(amd: SimulatedAmd) -> bytes:
    serial = x509.load_der_x509_certificate(amd.ask).serial_number
    return amd.crl(issued_unix_s=NOW - DAY_S, next_update_unix_s=NOW + DAY_S, revoked=[serial])


def tdx(body: BodyType | None) -> Case:
    intel = SimulatedIntel.make(NOW)
    quote = intel.sign_quote(DATA, body_type=body)
    files = {"quote": quote, "collateral": intel.collateral()}
    signature_at = len(parse_quote(quote).signed) + 4
    version = "v4" if body is None else f"v5_{body.name.lower()}"
    more = [malleable("quote", quote, signature_at + 32, 32, P256), *_older_collateral(intel)]
    judge, roots = judges.tdx(intel_roots(intel)), {"root": intel.root}
    return make(f"tdx/simulated_{version}", "tdx", files, judge, NOW, more=more, roots=roots)


def _older_collateral(intel: SimulatedIntel) -> Iterator[Mutation]:
    """Each document of Intel's in an edition that has ended, signed by the same keys; each left out."""
    window = {"issueDate": _date(NOW - 60 * DAY_S), "nextUpdate": _date(NOW - 30 * DAY_S)}
    ended = (NOW - 60 * DAY_S, NOW - 30 * DAY_S)
    signer = intel.certificate(
        "Intel SGX TCB Signing", "Intel SGX Root CA", intel.keys.tcb, intel.keys.root, window=ended
    )
    editions = {
        "tcb_info": (intel.collateral(tcb_info=intel.tcb_info(**window)), checks("tcb_info_expired")),
        "qe_identity": (intel.collateral(qe_identity=intel.qe_identity(**window)), checks("qe_identity_expired")),
        "pck_crl": (
            intel.collateral(pck_crl=intel.crl(intel.ca_name, intel.keys.ca, window=ended).hex()),
            checks("crl_expired"),
        ),
        "root_ca_crl": (
            intel.collateral(root_ca_crl=intel.crl("Intel SGX Root CA", intel.keys.root, window=ended).hex()),
            checks("crl_expired"),
        ),
        "tcb_info_issuer_chain": (
            intel.collateral(tcb_info_issuer_chain=pem(signer, intel.root)),
            checks("tcb_signing_cert_expired"),
        ),
        "qe_identity_issuer_chain": (
            intel.collateral(qe_identity_issuer_chain=pem(signer, intel.root)),
            checks("tcb_signing_cert_expired"),
        ),
    }
    for name, (data, named) in editions.items():
        yield Mutation("older", f"collateral.{name}", {"collateral": data}, named)
    tree = json.loads(intel.collateral())
    for name in tree:
        fewer = {key: value for key, value in tree.items() if key != name}
        yield Mutation(
            "omit", f"collateral.{name}", {"collateral": json.dumps(fewer).encode()}, checks("collateral_format")
        )
        emptied = json.dumps({**tree, name: ""}).encode()
        named = checks("collateral_format", "tcb_signing_chain", "crl_format", "dcap_qvl")
        reason = "not read: see the field" if name == "pck_crl_issuer_chain" else ""
        yield Mutation(
            "omit", f"collateral.{name} (empty)", {"collateral": emptied}, frozenset() if reason else named, reason
        )


def _date(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def azure(hardware: SimulatedAmd | SimulatedIntel) -> Case:
    machine = SimulatedAzure(hardware, make_ak())
    hcl, platform = machine.machine()
    vtpm, old = machine.quote(NONCE), machine.quote(b"a former nonce of this verifier.")
    files = {"hcl": hcl, "tpm_quote": vtpm.quote, "tpm_signature": vtpm.signature, "pcrs": vtpm.pcrs}
    if isinstance(hardware, SimulatedAmd):
        roots, name = judges.only(amd_ark_sha256=hardware.ark_sha256.hex()), "snp"
        files |= {"vek": hardware.vek, "ask": hardware.ask, "ark": hardware.ark}
    else:
        assert isinstance(platform, TdxPlatform)
        roots, name = intel_roots(hardware), "tdx"
        files |= {"td_quote": platform.quote, "collateral": platform.collateral_json}
    fewer = machine.sign(machine.attest(NONCE, selected=()))
    short = json.dumps(json.loads(vtpm.pcrs)[:-1]).encode()
    more = [
        _quoted("older", "tpm_quote", old, checks("tpm_nonce")),
        _quoted("omit", "tpm_quote.pcrs", fewer, checks("pcr_selection")),
        Mutation("omit", "pcrs.23", {"pcrs": short}, checks("pcrs_format")),
    ]
    return make(
        f"azure/simulated_{name}",
        "azure",
        files,
        judges.azure(roots),
        NOW,
        nonce=NONCE,
        more=more,
        roots={"root": hardware.ark if isinstance(hardware, SimulatedAmd) else hardware.root},
    )


def _quoted(kind: str, name: str, vtpm: VtpmEvidence, named: frozenset[str]) -> Mutation:
    return Mutation(kind, name, {"tpm_quote": vtpm.quote, "tpm_signature": vtpm.signature}, named)


def intel_roots(intel: SimulatedIntel) -> SimulatedRoots:
    return judges.only(intel_root_sha256=hashlib.sha256(intel.root).hexdigest())


def dstack_log() -> Case:
    listed = support.log(support.runtime("app", b"ran", version=2))
    data = support.encode(listed)
    intel = support.intel()
    files = {"log": data, "quote": support.quote_of(data), "collateral": intel.collateral()}
    more = [*logs.of_list(data)]
    return make(
        "eventlog/simulated_dstack",
        "eventlog",
        files,
        judges.eventlog(intel.root),
        support.NOW,
        platform="one",
        more=more,
    )


def ccel_log() -> Case:
    head = SPEC_ID + bytes(8) + struct.pack("<IHHB", 1, ALG_SHA384, 48, 0)
    data = struct.pack("<II20xI", 1, 3, len(head)) + head
    for register, kind, text in (
        (1, 4, bytes(4)),
        (1, 0x80000001, b"SecureBoot"),
        (2, 0x80000007, b"Exit Boot Services"),
        (3, 0xD, b"grub_cmd: linux /vmlinuz\0"),
        (3, 0x80000007, b"Booting"),
        (4, 0x80000007, b"app"),
    ):
        digest = hashlib.sha384(
            text.removeprefix(b"grub_cmd: ").removesuffix(b"\0") if kind == 0xD else text
        ).digest()
        data += struct.pack("<IIIH", register, kind, 1, ALG_SHA384) + digest + struct.pack("<I", len(text)) + text
    data += b"\xff" * 64
    intel = support.intel()
    files = {"log": data, "quote": support.quote_of(data), "collateral": intel.collateral()}
    more = [*logs.of_ccel(data, ccel_events(data))]
    return make(
        "eventlog/simulated_ccel",
        "eventlog",
        files,
        judges.eventlog(intel.root),
        support.NOW,
        platform="one",
        more=more,
    )
