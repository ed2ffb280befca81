"""The libraries that a transport is for."""

import pytest


@pytest.fixture(params=["httpx2-sync", "httpx2-async", "httpx-sync"])
def library(request: pytest.FixtureRequest) -> str:
    return request.param
