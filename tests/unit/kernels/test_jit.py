"""Where compiled kernels are kept: for exactly these sources, beside them, or for this process alone."""

from pathlib import Path

import pytest
from confide_kernels.jit import cache_folder


def test_any_change_of_a_source_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """numba would notice a change in a kernel's own file alone."""
    (tmp_path / "op").mkdir()
    (tmp_path / "op" / "compiled.py").write_text("one")
    before = cache_folder(tmp_path)
    assert before.parent == tmp_path / "__pycache__"
    assert cache_folder(tmp_path) == before
    (tmp_path / "op" / "compiled.py").write_text("two")
    assert cache_folder(tmp_path) != before


def test_what_cannot_be_written_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only installation serves what was compiled in it, from a folder that is this process's alone."""
    kept = cache_folder(tmp_path)
    (kept / "made").write_text("code")

    def refuse(**_: object) -> None:
        raise OSError

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    private = cache_folder(tmp_path)
    assert tmp_path not in private.parents
    assert (private / "made").read_text() == "code"
    assert private.parent.stat().st_mode & 0o777 == 0o700
