"""What judging evidence costs: a GPU, a TDX quote, an SEV-SNP report, beside the Python verifiers that can do it.

Evidence is a real machine's where CONFIDE_SHARED is here, else simulated; rows say which. `cold` is with nothing
remembered, `hot` with certificates and manifests known by their bytes, as at the second look at one machine. TDX
and SNP are hot where the name does not say; so is dcap-qvl, which gets its collateral parsed. All judge the same
bytes in turns. Peers get at once what they would fetch, and none makes all of our checks.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import dcap_qvl  # type: ignore[import-untyped]
from confide_attestation.nvidia.device import Arch

from tests.bench import Row, absent, ours, versus
from tests.bench.subjects import PeerAbsent
from tests.bench.timing import Work, interleaved_us
from tests.bench.turns import in_turns_us, running
from tests.conformance import Case, real, simulated, simulated_nvidia

US_PER_MS = 1000
Requirements = Mapping[str, Sequence[str]]
GPU_PEERS: Requirements = {"nv_local_gpu_verifier": ("nv-local-gpu-verifier==2.7.3",)}
SNP_PEERS: Requirements = {
    "omne_attest": ("omne-attest==0.1.0",),
    "dk_tee_attestation": ("dk-tee-attestation==0.6.5",),
    "cvm_attest": ("cvm-attest==1.0.0", "cryptography==50.0.2"),
    "secretvm_verify": ("secretvm-verify==0.12.0",),
}
GPU = ("nvidia/hopper_550.90.07", "nvidia/simulated_hopper")
TDX = ("tdx/dcap_qvl_tdx_quote__20250704", "tdx/simulated_v4")
SNP = ("snp/milan_v3_vcek_ms", "snp/simulated_milan_v2_vcek")


def rows(quick: bool) -> list[Row]:
    return [*_ours(quick), *_tdx(quick)]


def peer_rows(quick: bool) -> list[Row]:
    gpu, snp = chosen(GPU), chosen(SNP)
    gpu_words = f"550.90.07 96.00.9F.00.01 {gpu.now_unix_s}".encode()
    cold, hot = works(gpu)
    found = [*_beside({"nvidia_cold": cold, "nvidia_hot": hot}, gpu, GPU_PEERS, {"words": gpu_words}, quick)]
    return [
        *found,
        *_beside(
            dict(zip(("snp_cold", "snp"), works(snp), strict=True)), snp, SNP_PEERS, {"product": b"Milan"}, quick
        ),
    ]


@cache
def chosen(names: tuple[str, str]) -> Case:
    """Return the real case if it is here, else the simulated one; without OCSP answers, which no peer is given."""
    for case in (*real.cases(), simulated_nvidia.device(Arch.HOPPER), *simulated.cpu_cases()):
        if case.name in names:
            files = {role: data for role, data in case.files.items() if not role.startswith("ocsp")}
            return replace(case, files=files)
    raise AssertionError(f"there is no {names[1]}")


def works(case: Case) -> tuple[Work, Work]:
    """Return the judgement of a case with nothing remembered, and with everything."""
    remembered = [
        value
        for name, module in list(sys.modules.items())
        if name.startswith("confide_attestation.")
        for value in vars(module).values()
        # What has no limit is our own package: its roots.
        if hasattr(value, "cache_clear") and value.cache_info().maxsize is not None
    ]

    def hot() -> None:
        judged = case.judge(case.files, case.now_unix_s, case.nonce)
        assert not judged.refused, judged.failed

    def cold() -> None:
        for each in remembered:
            each.cache_clear()
        hot()

    return cold, hot


def _ours(quick: bool) -> Iterator[Row]:
    gpu, snp = chosen(GPU), chosen(SNP)
    (gpu_cold, gpu_hot), (snp_cold, snp_hot) = works(gpu), works(snp)
    given: dict[str, tuple[Work, Case]] = {
        "nvidia_cold": (gpu_cold, gpu),
        "nvidia_hot": (gpu_hot, gpu),
        "snp_cold": (snp_cold, snp),
        "snp": (snp_hot, snp),
    }
    rounds, calls = (1, 2) if quick else (9, 20)
    for name, (work, case) in given.items():
        least = interleaved_us({name: work}, rounds=rounds, calls=calls)
        yield replace(ours(_name(name), least[name] / US_PER_MS, "ms"), evidence=case.name)


def _tdx(quick: bool) -> Iterator[Row]:
    """Our judgement of a quote beside the library alone, which both use, in one process."""
    case = chosen(TDX)
    quote, text = case.files["quote"], case.files["collateral"].decode()
    collateral, root = dcap_qvl.QuoteCollateralV3.from_json(text), case.roots.get("root")
    verifier = dcap_qvl.QuoteVerifier(root) if root else dcap_qvl.QuoteVerifier()

    def bare() -> None:
        verifier.verify_with_policy(
            quote, collateral, case.now_unix_s, dcap_qvl.QuotePolicy.claims_only(case.now_unix_s)
        )

    rounds, calls = (1, 5) if quick else (15, 100)
    least = interleaved_us({"ours": works(case)[1], "dcap_qvl": bare}, rounds=rounds, calls=calls)
    value = least["ours"] / US_PER_MS
    for row in (
        ours(_name("tdx"), value, "ms"),
        versus(_name("tdx"), value, "ms", "dcap_qvl", least["dcap_qvl"] / US_PER_MS),
    ):
        yield replace(row, evidence=case.name)


def _beside(
    mine: Mapping[str, Work], case: Case, peers: Requirements, words: Mapping[str, bytes], quick: bool
) -> Iterator[Row]:
    broken: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        for role, data in {**case.files, **words}.items():
            (folder / role).write_bytes(data)
        started = {}
        for peer, requirements in peers.items():
            try:
                started[peer] = stack.enter_context(running(peer, requirements, folder))
            except PeerAbsent as fault:
                broken[peer] = str(fault)
        rounds, calls = (1, 2) if quick else (7, 15)
        least = in_turns_us(mine, started, rounds=rounds, calls=calls, broken=broken)
    for figure in mine:
        value = least[figure] / US_PER_MS
        for peer in peers:
            if peer in least:
                row = versus(_name(figure), value, "ms", peer, least[peer] / US_PER_MS)
                yield replace(row, evidence=case.name)
            else:
                yield absent(_name(figure), "ms", peer, broken[peer])


def _name(figure: str) -> str:
    return f"attestation.{figure}_ms"
