"""Where published vectors and real evidence lie: CONFIDE_SHARED, else `../shared` beside the checkout."""

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("CONFIDE_SHARED", Path(__file__).resolve().parents[1].parent / "shared"))


def shared_path(*parts: str) -> Path:
    """Return a path below the shared folder, or skip the test with the reason that it is absent."""
    path = ROOT.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not here; set CONFIDE_SHARED to the folder that has it")
    return path
