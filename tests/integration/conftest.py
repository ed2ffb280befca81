"""One running stack for all integration tests."""

from collections.abc import Iterator

import pytest

from tests.fakes.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give device, enclave and gateway as processes; nobody may stop or change them."""
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running
