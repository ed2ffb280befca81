"""Simulated hardware for all tests of this folder: making its keys is the slow part."""

import hashlib

import pytest
from confide_attestation.policy import SimulatedRoots
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.simulated.azure import SimulatedAzure, make_ak
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.simulated.nvidia import SimulatedVendor

NOW = 1_790_000_000


@pytest.fixture(scope="session")
def amd() -> SimulatedAmd:
    return SimulatedAmd.make(NOW)


@pytest.fixture(scope="session")
def intel() -> SimulatedIntel:
    return SimulatedIntel.make(NOW)


@pytest.fixture(scope="session")
def azure_snp(amd: SimulatedAmd) -> SimulatedAzure:
    return SimulatedAzure(amd, make_ak())


@pytest.fixture(scope="session")
def azure_tdx(intel: SimulatedIntel, azure_snp: SimulatedAzure) -> SimulatedAzure:
    return SimulatedAzure(intel, azure_snp.ak)


@pytest.fixture(scope="session")
def vendor() -> SimulatedVendor:
    return SimulatedVendor(NOW)


@pytest.fixture(scope="session")
def roots(amd: SimulatedAmd, intel: SimulatedIntel, vendor: SimulatedVendor) -> SimulatedRoots:
    return SimulatedRoots(
        amd_ark_sha256=amd.ark_sha256.hex(),
        intel_root_sha256=hashlib.sha256(intel.root).hexdigest(),
        nvidia_device_root_spki_sha256=vendor.roots.device_spki_sha256.hex(),
        nvidia_rim_root_spki_sha256=vendor.roots.rim_spki_sha256.hex(),
    )
