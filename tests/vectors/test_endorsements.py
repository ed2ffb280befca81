"""Real evidence names the documents that belong to it, and real documents pass through the fetchers whole."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from confide_attestation.errors import EndorsementsUnavailable
from confide_attestation.nvidia.evidence import parse_evidence
from confide_attestation.nvidia.ocsp import judge_revocation, read_answer
from confide_attestation.snp.abi import Product
from confide_endorsements import amd, azure, nvidia
from confide_endorsements.cache import Cache
from confide_endorsements.documents import Kind, document_end
from confide_endorsements.http import Http
from confide_endorsements.store import Store

from tests.fakes.vendors import Reply, Vendors
from tests.shared import shared_path

SNP = (
    "genoa_v3_vcek_ms",
    "milan_v2_vcek_debug_gosev",
    "milan_v2_vcek_trustee",
    "milan_v3_vcek_ms",
    "turin_v5_vcek_ms",
)
# Bundles whose lists and documents all end by one time, and what their quotes name.
TDX = (
    ("tdx/dcap_qvl_tdx_quote__20250704", "quote.bin", "B0C06F000000"),
    ("tdx/go_tdx_guest_quote_v5_sample_dat__20260305", "quote.bin", "90C06F000000"),
    ("tdx/go_tdx_guest_ccel_cos_113_tdx_quote_dat__20250626", "quote.bin", "00806F050000"),
    ("azure/tdx_live", "td_quote.bin", "90C06F000000"),
)


@pytest.mark.parametrize("bundle", SNP)
def test_a_report_names_the_vcek_that_amd_gave_for_it(bundle: str) -> None:
    """Chip, TCB and product by the product's own layout."""
    folder = shared_path("evidence", "snp", bundle)
    product = Product(json.loads((folder / "expected.json").read_text())["product"])
    chip = amd.chip_of((folder / "report.bin").read_bytes(), product)
    vek = (folder / "vek.der").read_bytes()
    assert amd.vcek_of(chip, vek) == vek
    assert chip.name().url.startswith(f"https://kdsintf.amd.com/vcek/v1/{product}/")
    assert document_end(Kind.AMD_VCEK, vek) > 1_700_000_000


def test_azures_report_names_its_vcek_too() -> None:
    """By the report within the HCL report."""
    folder = shared_path("evidence", "azure", "snp_milan_live")
    chip = amd.chip_of(azure.snp_report_of((folder / "hcl_report.bin").read_bytes()), Product.MILAN)
    vek = (folder / "vcek.der").read_bytes()
    assert amd.vcek_of(chip, vek) == vek


def test_a_cloud_that_signs_with_a_vlek_has_it_itself() -> None:
    """AMD's service would not give it to us."""
    report = shared_path("evidence", "snp", "milan_v3_vlek_aws_trustee", "report.bin").read_bytes()
    with pytest.raises(EndorsementsUnavailable, match="VLEK"):
        amd.chip_of(report)


@pytest.mark.anyio
@pytest.mark.parametrize(("bundle", "file", "fmspc"), TDX)
async def test_intels_real_documents_come_through_unchanged(
    bundle: str, file: str, fmspc: str, tmp_path: Path
) -> None:
    """From answers in Intel's form to the very collateral that they were taken from."""
    folder = shared_path("evidence", *bundle.split("/"))
    parts = json.loads((folder / "collateral.json").read_text())
    now = json.loads((folder / "expected.json").read_text())["now"]
    with Vendors().running() as vendors:
        for path, member, part, field in (
            (f"/tdx/certification/v4/tcb?fmspc={fmspc}", "tcbInfo", "tcb_info", "TCB-Info-Issuer-Chain"),
            (
                "/tdx/certification/v4/qe/identity",
                "enclaveIdentity",
                "qe_identity",
                "SGX-Enclave-Identity-Issuer-Chain",
            ),
        ):
            body = f'{{"{member}":{parts[part]},"signature":"{parts[f"{part}_signature"]}"}}'
            chain = {field: quote(parts[f"{part}_issuer_chain"])}
            vendors.routes[path] = Reply(body=body.encode(), fields=chain)
        for ca in ("platform", "processor"):
            chain = {"SGX-PCK-CRL-Issuer-Chain": quote(parts["pck_crl_issuer_chain"])}
            path = f"/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"
            vendors.routes[path] = Reply(body=bytes.fromhex(parts["pck_crl"]), fields=chain)
        vendors.routes["/IntelSGXRootCA.der"] = Reply(body=bytes.fromhex(parts["root_ca_crl"]))
        http = Http(plain=vendors.services.plain)
        store = Store(Cache(tmp_path), http, vendors.services, now_unix_s=lambda: now)
        found = await store.tdx((folder / file).read_bytes())
    assert json.loads(found.collateral) == {k: v for k, v in parts.items() if k != "pck_certificate_chain"}


def test_a_real_gpu_names_its_manifests_and_certificates() -> None:
    """By NVIDIA's own ids; the recorded answers are about exactly the certificates that are asked about."""
    folder = shared_path("evidence", "nvidia", "hopper_550.90.07")
    devices = parse_evidence((folder / "report.bin").read_bytes(), (folder / "chain.pem").read_bytes())
    needs = nvidia.needs_of(devices)
    assert needs.rim_ids == ("NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001")
    rims = [(folder / f"{name}_rim.xml").read_bytes() for name in ("driver", "vbios")]
    questions = dict.fromkeys([*needs.questions, *(q for rim in rims for q in nvidia.questions_of_rim(rim))])
    answers = [read_answer(path.read_bytes()) for path in sorted((folder / "ocsp").iterdir())]
    judged = [judge_revocation((each.subject, each.issuer), answers, 0) for each in questions]
    assert len(questions) == len(answers)
    assert not any(each.unanswered for each in judged)
    assert all(document_end(Kind.NVIDIA_RIM, rim) > 1_700_000_000 for rim in rims)
    assert {document_end(Kind.NVIDIA_OCSP, each.der) // 86_400 for each in answers} == {20_322, 20_386}


@pytest.mark.parametrize(
    ("file", "count"),
    [("multi_gpu_hopper.json", 2), ("multi_switch_ls10.json", 1), ("switch_evidence_ls10.json", 1)],
)
def test_several_devices_are_asked_about_once(file: str, count: int) -> None:
    """The manifests that they share, and the authorities above them."""
    parts = ("attestation-sdk", "common-test-data", "serialized_test_evidence", file)
    devices = parse_evidence(shared_path("evidence", "nvidia", *parts).read_bytes(), None)
    needs = nvidia.needs_of(devices)
    assert len(needs.rim_ids) == count
    assert len(needs.questions) == len(set(needs.questions)) <= 2 + len(devices)
