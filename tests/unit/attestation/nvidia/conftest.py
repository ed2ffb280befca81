"""One simulated vendor for all tests of this folder: making its keys is the slow part."""

import pytest
from confide_attestation.simulated.nvidia import SimulatedVendor


@pytest.fixture(scope="session")
def vendor() -> SimulatedVendor:
    return SimulatedVendor(1_780_000_000)
