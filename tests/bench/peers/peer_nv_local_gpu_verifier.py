"""NVIDIA's own local verifier over one GPU. Its clock is set, its OCSP answers are good and its RIMs are at hand.

Everything else is as it comes: it logs to a file, and starts a thread for each manifest that it fetches.
"""

from turns import take_turns  # isort: split

import os
import sys
import tempfile
from pathlib import Path

from OpenSSL import crypto

folder = Path(sys.argv[1])
report, chain, driver_rim, vbios_rim = (
    (folder / name).read_bytes() for name in ("report0", "chain0", "rim0", "rim1")
)
driver, vbios, now_unix_s = (folder / "words").read_text().split()
os.chdir(tempfile.mkdtemp())  # it writes verifier.log where it stands

from datetime import UTC, datetime  # noqa: E402

from verifier import cc_admin  # noqa: E402
from verifier.cc_admin_utils import CcAdminUtils  # noqa: E402
from verifier.nvml import GpuCertificateChains  # noqa: E402

AT = datetime.fromtimestamp(int(now_unix_s), UTC).replace(tzinfo=None)
new_context = crypto.X509StoreContext.__init__


def context_with_clock(self: crypto.X509StoreContext, store: crypto.X509Store, *rest: object) -> None:
    store.set_time(AT)
    new_context(self, store, *rest)


class Gpu:
    """What the NVML handler would have collected."""

    def get_gpu_architecture(self) -> int:
        return 9

    def get_uuid(self) -> str:
        return "GPU-0"

    def get_driver_version(self) -> str:
        return driver

    def get_vbios_version(self) -> str:
        return vbios

    def get_attestation_report(self) -> bytes:
        return report

    def get_attestation_cert_chain(self) -> list[crypto.X509]:
        certificates: list[crypto.X509] = GpuCertificateChains.extract_cert_chain(chain)
        return certificates


def fetch(file_id: str, *_: object) -> str:
    return (driver_rim if "DRIVER" in file_id else vbios_rim).decode()


crypto.X509StoreContext.__init__ = context_with_clock
CcAdminUtils.ocsp_certificate_chain_validation = staticmethod(lambda *_: (True, None, "good", None))
CcAdminUtils.fetch_rim_file = staticmethod(fetch)
OPTIONS = {
    "allow_hold_cert": False, "ocsp_nonce_disabled": True, "rim_service_url": None, "ocsp_url": None,
    "service_key": None, "verbose": False, "driver_rim": None, "vbios_rim": None, "test_no_gpu": False,
    "user_mode": True, "claims_version": "3.0",
}  # fmt: skip


def judge() -> None:
    accepted, _ = cc_admin.attest(OPTIONS, report[4:36].hex(), [Gpu()])
    assert accepted, "refused"


take_turns(judge)
