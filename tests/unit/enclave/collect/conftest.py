"""Simulated hardware for all tests of this folder: making its keys is the slow part."""

import pytest
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
