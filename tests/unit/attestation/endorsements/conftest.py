"""Simulated hardware and a local server that answers as its vendors do, with today's clock."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confide_attestation.simulated.amd import SimulatedAmd, SimulatedKeys
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor
from confide_endorsements.cache import Cache
from confide_endorsements.http import Http
from confide_endorsements.store import Store

from tests.fakes.vendors import Vendors

NOW = int(time.time())


@pytest.fixture(scope="session")
def amd() -> SimulatedAmd:
    return SimulatedAmd.make(NOW, keys=SimulatedKeys.generate())


@pytest.fixture(scope="session")
def intel() -> SimulatedIntel:
    return SimulatedIntel.make(NOW)


@pytest.fixture(scope="session")
def device() -> SimulatedDevice:
    return SimulatedDevice(SimulatedVendor(NOW))


@pytest.fixture
def vendors() -> Iterator[Vendors]:
    with Vendors().running() as server:
        yield server


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, told: list[str]) -> Cache:
    return Cache(tmp_path / "cache", tell=told.append)


@pytest.fixture
def waits() -> list[float]:
    """The waits that a client asked for, none of which is made."""
    return []


@pytest.fixture
def http(vendors: Vendors, waits: list[float]) -> Http:
    async def at_once(seconds: float) -> None:
        waits.append(seconds)

    return Http(plain=vendors.services.plain, sleep=at_once)


@pytest.fixture
def store(cache: Cache, http: Http, vendors: Vendors, told: list[str]) -> Store:
    return Store(cache, http, vendors.services, tell=told.append)
