"""A model that is quick to run."""

from pathlib import Path

import pytest

from tests.fakes import gguf as fake


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a toy model lies."""
    path = tmp_path_factory.mktemp("model") / "toy.gguf"
    path.write_bytes(fake.toy_llama(5))
    return path
