"""Server CPU for one exchange over loopback HTTP: sealed by us, in clear, and sealed by others.

`enclave.sealed_*` is the whole enclave but the model: sealing, API, transcript, receipt with both signatures; its
`direct` is the same API in clear. `enclave.sealing_*` is our sealing alone, around the application that the peers'
middleware wraps as well: the like-for-like row. The peers sign nothing, and none is post-quantum.
"""

import sys

from tests.bench import Row, absent, ours, versus
from tests.bench.subjects import PeerAbsent, Script, interleaved_cpu_us, peer_script, running

SERVER = ("uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "httpx==0.28.1")
PEERS = {
    "hpke_http": ("hpke-http==4.0.1", "starlette==1.10.0", *SERVER),
    "tinfoil_ehbp": ("tinfoil-ehbp==0.4.1", "openai==2.54.0", *SERVER),
}
FIGURES = {"request": "request_1kb_cpu_us", "stream": "stream_64_cpu_us"}


def rows(quick: bool) -> list[Row]:
    taken, reasons = _measure(
        [_ours(name) for name in ("sealed", "plain", "bucketed", "sealing", "plain_app")], quick
    )
    if reasons:
        raise PeerAbsent("; ".join(reasons.values()))
    found = []
    for kind, figure in FIGURES.items():
        for mine, direct in (("sealed", "plain"), ("sealing", "plain_app")):
            name, value = f"enclave.{mine}_{figure}", taken[mine, kind]
            found.append(ours(name, value, "us"))
            found.append(versus(name, value, "us", "direct", taken[direct, kind]))
        found.append(ours(f"enclave.sealed_bucketed_{figure}", taken["bucketed", kind], "us"))
    return found


def peer_rows(quick: bool) -> list[Row]:
    scripts, reasons = [_ours("sealed"), _ours("sealing")], {}
    for peer, requirements in PEERS.items():
        try:
            scripts.append(peer_script(peer, requirements))
        except PeerAbsent as fault:
            reasons[peer] = str(fault)
    taken, broken = _measure(scripts, quick)
    found = []
    for kind, figure in FIGURES.items():
        for mine in ("sealed", "sealing"):
            for peer in PEERS:
                name = f"enclave.{mine}_{figure}"
                if (peer, kind) in taken:
                    found.append(versus(name, taken[mine, kind], "us", peer, taken[peer, kind]))
                else:
                    found.append(absent(name, "us", peer, (reasons | broken)[peer]))
    return found


def _ours(variant: str) -> Script:
    return Script(variant, (sys.executable, "-m", "tests.bench.sealed_server", variant))


def _measure(scripts: list[Script], quick: bool) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    rounds, counts = (1, {"request": 10, "stream": 4}) if quick else (9, {"request": 100, "stream": 30})
    with running(scripts) as (subjects, reasons):
        return interleaved_cpu_us(subjects, counts, rounds=rounds, broken=reasons), reasons
