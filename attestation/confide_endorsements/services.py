"""Where the vendors' services are; each can be replaced, by a cache of one's own or a test's server."""

from dataclasses import astuple, dataclass

from confide_attestation.snp.kds import KDS

from confide_endorsements import azure, intel, nvidia


@dataclass(frozen=True)
class Services:
    """Base URLs without a slash at the end, and the whole URL of Intel's root list."""

    kds: str = KDS
    pcs: str = intel.PCS
    root_crl: str = intel.ROOT_CRL
    rim: str = nvidia.RIM
    ocsp: str = nvidia.OCSP
    nras: str = nvidia.NRAS
    metadata: str = azure.METADATA

    @property
    def plain(self) -> tuple[str, ...]:
        """Return those that are configured with http."""
        return tuple(url for url in astuple(self) if url.startswith("http://"))
