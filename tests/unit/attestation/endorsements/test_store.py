"""What the services answer is what the verifiers take; what is kept is not asked for again."""

import json
from dataclasses import replace
from math import ceil

import pytest
from confide_attestation.errors import EndorsementsUnavailable, EvidenceMalformed
from confide_attestation.evidence import (
    CpuEvidence,
    CpuKind,
    Endorsements,
    EvidenceBundle,
    GpuEvidence,
    VtpmEvidence,
    encode_endorsements,
    parse_endorsements,
)
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.simulated.azure import SimulatedAzure, make_ak
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.simulated.nvidia import SimulatedDevice
from confide_endorsements.cache import Cache, split_key
from confide_endorsements.documents import Kind, Name
from confide_endorsements.http import Http
from confide_endorsements.store import MAX_AGE_S, Store
from confide_protocol.statement import NoncePath

from tests.fakes.vendors import Reply, Vendors
from tests.unit.attestation.endorsements.conftest import NOW
from tests.unit.attestation.endorsements.judging import NONCE, RIM_IDS, nvidia_holds, snp_holds, tdx_holds

pytestmark = pytest.mark.anyio


@pytest.fixture
def offline(cache: Cache, vendors: Vendors) -> Store:
    return Store(cache, None, vendors.services)


async def test_intels_documents_are_accepted(
    store: Store, offline: Store, vendors: Vendors, intel: SimulatedIntel
) -> None:
    """Four answers become the collateral, signed text untouched; the second time nothing is asked."""
    vendors.serve_intel(intel)
    quote = intel.sign_quote(bytes(64))
    found = await store.tdx(quote)
    assert tdx_holds(intel, quote, found)
    assert len(vendors.asked) == 4
    assert await store.tdx(quote) == await offline.tdx(quote) == found
    assert len(vendors.asked) == 4


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
async def test_amds_documents_are_accepted(store: Store, vendors: Vendors, amd: SimulatedAmd, product: str) -> None:
    """VCEK by chip and TCB in each product's layout, chain and list."""
    chip = SimulatedAmd.make(NOW, product=product, keys=amd.keys)
    vcek = vendors.serve_amd(chip, NOW)
    report = chip.sign_report(bytes(64))
    found = await store.snp(report)
    assert snp_holds(chip, report, found)
    assert vendors.asked[0] == vcek
    assert await store.snp(report) == found
    assert len(vendors.asked) == 3


async def test_a_clouds_own_key_gets_the_chain_above_it(store: Store, vendors: Vendors, amd: SimulatedAmd) -> None:
    """The machine holds its VLEK; AMD has another chain and list for those."""
    chip = SimulatedAmd.make(NOW, signer="VLEK", keys=amd.keys)
    vendors.serve_amd(chip, NOW)
    assert snp_holds(chip, chip.sign_report(bytes(64)), await store.vlek(chip.vek))
    assert vendors.asked == ["/vlek/v1/Genoa/cert_chain", "/vlek/v1/Genoa/crl"]
    with pytest.raises(EvidenceMalformed, match="found a VCEK"):
        await store.vlek(amd.vek)
    with pytest.raises(EvidenceMalformed):
        await store.vlek(chip.ask)


async def test_nvidias_documents_are_accepted(
    store: Store, offline: Store, vendors: Vendors, device: SimulatedDevice
) -> None:
    """Both manifests by their ids, an answer for each certificate of device and manifests."""
    vendors.serve_nvidia(device, RIM_IDS)
    found = await store.nvidia([device.evidence(NONCE)])
    assert nvidia_holds(device, found)
    assert len(found.ocsp or ()) == 6
    assert await offline.nvidia([device.evidence(NONCE)]) == found
    assert len(vendors.asked) == 8


async def test_azure_gives_the_machines_own_certificates(store: Store, vendors: Vendors, amd: SimulatedAmd) -> None:
    """From the metadata address, with the header it demands; AMD is asked for the list alone."""
    vendors.serve_amd(amd, NOW)
    vendors.serve_azure(amd)
    report = amd.sign_report(bytes(64))
    assert snp_holds(amd, report, await store.snp(report, from_azure=True))
    assert vendors.seen_fields[0]["metadata"] == "true"
    assert vendors.asked == ["/metadata/THIM/amd/certification", "/vcek/v1/Genoa/crl"]


async def test_a_refresh_asks_once_for_everything(
    cache: Cache, http: Http, vendors: Vendors, amd: SimulatedAmd, intel: SimulatedIntel
) -> None:
    """What was kept before is asked for again, on Azure of the machine, and not twice in one run."""
    vendors.serve_amd(amd, NOW)
    vendors.serve_azure(amd)
    vendors.serve_intel(intel)
    report, quote = amd.sign_report(bytes(64)), intel.sign_quote(bytes(64))
    before = Store(cache, http, vendors.services, now_unix_s=lambda: NOW)
    await before.snp(report)
    await before.tdx(quote)
    vendors.asked.clear()
    store = Store(cache, http, vendors.services, refresh=True, now_unix_s=lambda: NOW + 1)
    for _ in range(2):
        await store.snp(report, from_azure=True)
        await store.tdx(quote)
    assert vendors.asked[:2] == ["/metadata/THIM/amd/certification", "/vcek/v1/Genoa/crl"]
    assert len(vendors.asked) == 6


async def test_what_was_gathered_travels_to_an_enclave(
    store: Store, vendors: Vendors, amd: SimulatedAmd, intel: SimulatedIntel, device: SimulatedDevice
) -> None:
    """The enclave's file holds the same endorsements."""
    vendors.serve_amd(amd, NOW)
    vendors.serve_intel(intel)
    vendors.serve_nvidia(device, RIM_IDS)
    found = Endorsements(
        await store.snp(amd.sign_report(bytes(64))),
        await store.tdx(intel.sign_quote(bytes(64))),
        await store.nvidia([device.evidence(NONCE)]),
    )
    assert parse_endorsements(encode_endorsements(found)) == found


async def test_a_bundle_of_evidence_says_all_that_its_machine_needs(
    store: Store, vendors: Vendors, amd: SimulatedAmd, intel: SimulatedIntel, device: SimulatedDevice
) -> None:
    """By the kind of its processor, on Azure by what lies within, and by each of its devices."""
    vendors.serve_amd(amd, NOW)
    vendors.serve_intel(intel)
    vendors.serve_nvidia(device, RIM_IDS)
    report, quote = amd.sign_report(bytes(64)), intel.sign_quote(bytes(64))
    hcl, _ = SimulatedAzure(amd, make_ak()).machine()
    snp, tdx = await store.snp(report), await store.tdx(quote)
    gpus = (GpuEvidence("HOPPER", device.report(NONCE), device.chain),)
    for cpu, found in (
        (CpuEvidence(CpuKind.SEV_SNP, report), (snp, None)),
        (CpuEvidence(CpuKind.AZURE_SEV_SNP, hcl, VtpmEvidence(b"", b"", b"")), (snp, None)),
        (CpuEvidence(CpuKind.TDX, quote), (None, tdx)),
        (CpuEvidence(CpuKind.AZURE_TDX, b"", VtpmEvidence(b"", b"", b"", quote)), (None, tdx)),
    ):
        bundle = EvidenceBundle(b"", b"", b"", NoncePath(()), cpu, gpus)
        gathered = await store.bundle(bundle)
        assert (gathered.snp, gathered.tdx) == found
        assert gathered.nvidia is not None
        assert (await store.bundle(replace(bundle, gpus=()))).nvidia is None
    with pytest.raises(EvidenceMalformed):
        await store.bundle(replace(bundle, cpu=CpuEvidence(CpuKind.AZURE_TDX, b"")))


async def test_offline_names_what_is_missing_and_how_to_bring_it(offline: Store, intel: SimulatedIntel) -> None:
    """One line with the URL and the command; no socket."""
    with pytest.raises(EndorsementsUnavailable) as fault:
        await offline.tdx(intel.sign_quote(bytes(64)))
    text = str(fault.value)
    assert fault.value.code == "endorsements_unavailable"
    assert "/tdx/certification/v4/tcb?fmspc=90C06F000000" in text
    assert "confide endorsements import" in text
    assert "\n" not in text


async def test_amds_service_is_asked_for_one_chip_in_ten_seconds(
    store: Store, vendors: Vendors, amd: SimulatedAmd, waits: list[float]
) -> None:
    """Chain and list are not spaced; neither is a chip that is kept."""
    chips = [SimulatedAmd.make(NOW, keys=amd.keys, chip_id=bytes([n]) * 64) for n in (1, 2, 3)]
    for chip in chips:
        vendors.serve_amd(chip, NOW)
        await store.snp(chip.sign_report(bytes(64)))
    await store.snp(chips[0].sign_report(bytes(64)))
    assert [ceil(wait / 10) for wait in waits] == [1, 2]


async def test_an_aged_list_is_asked_for_again_and_a_silent_vendor_forgiven(
    cache: Cache, http: Http, vendors: Vendors, amd: SimulatedAmd, told: list[str]
) -> None:
    """The VCEK lasts; the list is refreshed daily; the kept one counts while AMD is down, until it ends."""
    clock = [NOW]
    store = Store(cache, http, vendors.services, now_unix_s=lambda: clock[0], tell=told.append)
    report = amd.sign_report(bytes(64))
    vendors.serve_amd(amd, NOW)
    first = await store.snp(report)
    clock[0] += MAX_AGE_S
    vendors.routes["/vcek/v1/Genoa/crl"] = Reply(503)
    assert await store.snp(report) == first
    assert vendors.asked[3:] == ["/vcek/v1/Genoa/crl"] * 4
    assert "still counts" in told[0]
    clock[0] += 20 * 86_400
    with pytest.raises(EndorsementsUnavailable, match="503"):
        await store.snp(report)


@pytest.mark.parametrize("refresh", [False, True])
async def test_what_was_fetched_in_the_time_to_come_is_asked_for_again(
    cache: Cache, http: Http, vendors: Vendors, amd: SimulatedAmd, refresh: bool
) -> None:
    """A clock that was ahead once, or an index that was written by another, keeps no list in use for ever."""
    vendors.serve_amd(amd, NOW)
    report = amd.sign_report(bytes(64))
    await Store(cache, http, vendors.services, now_unix_s=lambda: NOW + 86_400).snp(report)
    vendors.asked.clear()
    await Store(cache, http, vendors.services, refresh=refresh, now_unix_s=lambda: NOW).snp(report)
    assert len(vendors.asked) == 3


async def test_answers_that_are_not_what_was_asked_are_not_kept(
    cache: Cache, store: Store, vendors: Vendors, amd: SimulatedAmd, intel: SimulatedIntel, device: SimulatedDevice
) -> None:
    """Garbage, other chips', other platforms', ended: named by URL, never by their bytes, and never kept."""
    vendors.serve_amd(SimulatedAmd.make(NOW, keys=amd.keys), NOW)
    vendors.serve_intel(intel)
    vendors.serve_nvidia(device, RIM_IDS)
    other_chip = SimulatedAmd.make(NOW, keys=amd.keys, chip_id=b"\x77" * 64)
    other_platform = Vendors()
    other_platform.serve_intel(SimulatedIntel.make(NOW, keys=intel.keys, fmspc=bytes(6)))
    vcek = next(path for path in vendors.routes if path.startswith("/vcek") and "?" in path)
    ended = amd.crl(issued_unix_s=NOW - 99, next_update_unix_s=NOW - 9)
    tcb = "/tdx/certification/v4/tcb?fmspc=90C06F000000"
    foreign = next(iter(other_platform.routes.values()))
    good = vendors.routes[tcb]
    assert isinstance(good, Reply)
    rim = f"/v1/rim/{RIM_IDS[0]}"
    canary = b"CANARY" * 50
    for ask, path, reply in (
        (lambda: store.snp(amd.sign_report(bytes(64))), vcek, Reply(body=canary)),
        (lambda: store.snp(amd.sign_report(bytes(64))), vcek, Reply(body=other_chip.vek)),
        (lambda: store.snp(amd.sign_report(bytes(64))), vcek, Reply(body=amd.ask)),
        (lambda: store.snp(amd.sign_report(bytes(64))), vcek, Reply(404, canary)),
        (lambda: store.snp(amd.sign_report(bytes(64))), "/vcek/v1/Genoa/cert_chain", Reply(body=canary)),
        (lambda: store.snp(amd.sign_report(bytes(64))), "/vcek/v1/Genoa/crl", Reply(body=canary)),
        (lambda: store.snp(amd.sign_report(bytes(64))), "/vcek/v1/Genoa/crl", Reply(body=ended)),
        (lambda: store.tdx(intel.sign_quote(bytes(64))), tcb, foreign),
        (lambda: store.tdx(intel.sign_quote(bytes(64))), tcb, Reply(body=canary, fields=good.fields)),
        (lambda: store.tdx(intel.sign_quote(bytes(64))), tcb, Reply(body=good.body)),
        (lambda: store.tdx(intel.sign_quote(bytes(64))), "/IntelSGXRootCA.der", Reply(body=canary)),
        (lambda: store.nvidia([device.evidence(NONCE)]), rim, Reply(body=canary)),
        (lambda: store.nvidia([device.evidence(NONCE)]), rim, vendors.routes[f"/v1/rim/{RIM_IDS[1]}"]),
        (lambda: store.nvidia([device.evidence(NONCE)]), "/", Reply(body=canary)),
    ):
        before, vendors.routes[path] = vendors.routes[path], reply
        with pytest.raises(EndorsementsUnavailable) as fault:
            await ask()
        assert path.partition("?")[0] in str(fault.value)
        assert "CANARY" not in str(fault.value)
        vendors.routes[path] = before
    kinds = {key.split()[0] for key in cache.entries()}
    assert "nvidia-ocsp" not in kinds
    assert "intel-root-crl" not in kinds
    assert "amd-crl" not in kinds


async def test_kept_documents_of_others_count_as_absent(
    cache: Cache,
    store: Store,
    vendors: Vendors,
    told: list[str],
    amd: SimulatedAmd,
    intel: SimulatedIntel,
    device: SimulatedDevice,
) -> None:
    """An imported file called them ours; they are asked for anew, and said to be so."""
    vendors.serve_amd(amd, NOW)
    vendors.serve_intel(intel)
    vendors.serve_nvidia(device, RIM_IDS)
    report, quote, evidence = amd.sign_report(bytes(64)), intel.sign_quote(bytes(64)), device.evidence(NONCE)
    good = await store.snp(report), await store.tdx(quote), await store.nvidia([evidence])
    other_chip = SimulatedAmd.make(NOW, keys=amd.keys, chip_id=b"\x77" * 64)
    other_platform = SimulatedIntel.make(NOW, keys=intel.keys, fmspc=bytes(6))
    parts = json.loads(other_platform.collateral())
    tcb_info = {name: parts[name] for name in ("tcb_info", "tcb_info_signature", "tcb_info_issuer_chain")}
    answer = device.vendor.answer(device.certificates[0], device.certificates[1], device.brom_key).der
    foreign = {
        Kind.AMD_VCEK: other_chip.vek,
        Kind.INTEL_TCB_INFO: json.dumps(tcb_info).encode(),
        Kind.NVIDIA_OCSP: answer,
    }
    for key in cache.entries():
        kind, document_id = split_key(key)
        if kind in foreign:
            cache.put(Name(kind, document_id, "https://x.invalid/"), foreign[kind], now_unix_s=NOW + 9)
    vendors.asked.clear()
    assert (await store.snp(report), await store.tdx(quote)) == good[:2]
    assert len((await store.nvidia([evidence])).ocsp or ()) == 6
    assert len(vendors.asked) == len([each for each in told if "counts as absent" in each]) == 8


async def test_ocsp_answers_must_answer_our_nonce(store: Store, vendors: Vendors, device: SimulatedDevice) -> None:
    """Another nonce, none at all, another certificate's, or no answer."""
    vendors.serve_nvidia(device, RIM_IDS)
    ica = device.vendor.answer(device.vendor.ica, device.vendor.identity, device.vendor.keys["identity"]).der
    for reply in (
        lambda body: Reply(body=vendors.ocsp_answer(device, body, nonce=b"\1" * 32)),
        lambda body: Reply(body=vendors.ocsp_answer(device, body, nonce=None)),
        Reply(body=ica),
        Reply(body=bytes.fromhex("30030a0103")),
    ):
        vendors.routes["/"] = reply
        with pytest.raises(EndorsementsUnavailable, match="not usable"):
            await store.nvidia([device.evidence(NONCE)])


async def test_evidence_of_another_kind_is_malformed(
    store: Store, amd: SimulatedAmd, intel: SimulatedIntel, device: SimulatedDevice
) -> None:
    """Before anything is asked."""
    with pytest.raises(EvidenceMalformed):
        await store.tdx(amd.sign_report(bytes(64)))
    with pytest.raises(EvidenceMalformed):
        await store.snp(intel.sign_quote(bytes(64)))
    with pytest.raises(EvidenceMalformed, match="--product"):
        await store.snp(amd.sign_report(bytes(64), version=2))
    with pytest.raises(EvidenceMalformed, match="hides"):
        await store.snp(amd.sign_report(bytes(64), chip_id=bytes(64)))
    with pytest.raises(EndorsementsUnavailable, match="VLEK"):
        await store.snp(amd.sign_report(bytes(64), flags=1 << 2))
