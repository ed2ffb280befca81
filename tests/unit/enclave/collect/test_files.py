"""The machine's own file system, on a real one, and the words for its faults."""

import errno
from pathlib import Path

import pytest
from confide_enclave.collect.files import Files, unavailable

from tests.unit.enclave.collect.kernel import fault


def test_reads_and_writes_whole_files(tmp_path):
    """What was written is read, folders come and go, and nothing is truncated by a write."""
    files, folder = Files(), tmp_path / "entry"
    files.mkdir(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    file = folder / "inblob"
    file.write_bytes(b"0123456789")
    files.write(file, b"abc")
    assert files.read(file, 10) == b"abc3456789"
    file.unlink()
    files.rmdir(folder)
    assert not files.exists(folder)


def test_a_file_over_its_limit_is_refused(tmp_path):
    """One byte more than the limit is EFBIG."""
    (tmp_path / "f").write_bytes(bytes(200_000))
    with pytest.raises(OSError, match="large") as caught:
        Files().read(tmp_path / "f", 199_999)
    assert caught.value.errno == errno.EFBIG


def test_an_absent_file_is_an_os_error(tmp_path):
    """Neither call invents a file."""
    with pytest.raises(FileNotFoundError):
        Files().read(tmp_path / "f", 1)
    with pytest.raises(FileNotFoundError):
        Files().write(tmp_path / "f", b"x")


def test_what_may_not_be_looked_at_is_there(tmp_path, monkeypatch):
    """Only what is not there is absent; anything else fails where it is used, with its reason."""
    assert not Files().exists(tmp_path / "f" / "g")
    (tmp_path / "f").touch()
    assert not Files().exists(tmp_path / "f" / "g")

    def refuse(path):
        raise fault(errno.EACCES)

    monkeypatch.setattr(Path, "stat", refuse)
    assert Files().exists(tmp_path / "f")


def test_a_write_that_is_not_taken_whole_is_an_error(tmp_path, monkeypatch):
    """Half an attribute is none."""
    (tmp_path / "f").touch()
    monkeypatch.setattr("os.write", lambda handle, data: len(data) - 1)
    with pytest.raises(OSError, match="Input/output"):
        Files().write(tmp_path / "f", b"abc")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOENT, "load it"),
        (errno.ENXIO, "load it"),
        (errno.EACCES, "permission denied; run the enclave as a user"),
        (errno.EPERM, "permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_fault_names_path_and_remedy(number, said):
    """Absent, forbidden and broken are told apart."""
    text = str(unavailable("/dev/x", fault(number), "load it"))
    assert text.startswith("/dev/x: ")
    assert said in text
