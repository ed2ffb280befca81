"""The shelf of endorsements: a file that may change, what the gateway posts, and neither believed."""

import os
from pathlib import Path

import pytest
import structlog
from confide_attestation.evidence import Endorsements, SnpEndorsements, TdxEndorsements, encode_endorsements
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_enclave.endorsements import MAX_ENDORSEMENTS_BYTES, Shelf, overlay
from confide_protocol.errors import ConfigError

OLD = Endorsements(snp=SnpEndorsements(b"vek1", b"ask1", b"ark1", b"crl1"), tdx=TdxEndorsements(b"tdx1"))
NEW = Endorsements(snp=SnpEndorsements(b"vek2"), nvidia=NvidiaEndorsements((b"rim",)))


def write(path: Path, endorsements: Endorsements) -> Path:
    path.write_bytes(encode_endorsements(endorsements))
    return path


def test_each_vendors_latest_count():
    """What is not there is left as it was; a key's certificate without a chain takes the chain at hand."""
    assert overlay(OLD, Endorsements()) == OLD
    assert overlay(Endorsements(), NEW) == NEW
    merged = overlay(OLD, NEW)
    assert merged.snp == SnpEndorsements(b"vek2", b"ask1", b"ark1", b"crl1")
    assert (merged.tdx, merged.nvidia) == (OLD.tdx, NEW.nvidia)


def test_what_came_with_the_report_goes_first():
    """The host's own certificate fits the report that it came with."""
    shelf = Shelf()
    shelf.take(OLD)
    assert shelf.beside(Endorsements(snp=SnpEndorsements(b"own"))).snp == SnpEndorsements(
        b"own", b"ask1", b"ark1", b"crl1"
    )
    assert shelf.current == OLD


def test_a_file_is_followed(tmp_path):
    """A changed file is read again, over what was posted meanwhile."""
    file = write(tmp_path / "e", OLD)
    shelf = Shelf(file)
    assert shelf.current == OLD
    shelf.take(NEW)
    assert shelf.current == overlay(OLD, NEW)
    write(tmp_path / "next", Endorsements(tdx=TdxEndorsements(b"tdx2"))).replace(file)
    assert shelf.current.tdx == TdxEndorsements(b"tdx2")
    assert shelf.current.nvidia == NEW.nvidia


def test_a_bad_change_keeps_what_was_there(tmp_path):
    """Garbage, and a file that went away, are one line in the log each, until a good one comes."""
    file = write(tmp_path / "e", OLD)
    shelf = Shelf(file)
    with structlog.testing.capture_logs() as logs:
        file.write_bytes(b"garbage")
        assert shelf.current == shelf.current == OLD
        file.unlink()
        assert shelf.current == shelf.current == OLD
        write(file, NEW)
        assert shelf.current.nvidia == NEW.nvidia
    assert [line["event"] for line in logs] == ["endorsements.kept", "endorsements.kept", "endorsements.read"]
    assert "garbage" not in str(logs)


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (None, "cannot be read"),
        (b"", "no file of endorsements"),
        (b"\xa0", "no file of endorsements"),
        (encode_endorsements(OLD)[:-1], "no file of endorsements"),
        (bytes(MAX_ENDORSEMENTS_BYTES + 1), "larger than"),
    ],
    ids=["absent", "empty", "map", "cut", "huge"],
)
def test_a_bad_file_at_the_start_is_named(tmp_path, content, remedy):
    """File, setting, remedy."""
    if content is not None:
        (tmp_path / "e").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Shelf(tmp_path / "e")
    assert (caught.value.file, caught.value.field) == (str(tmp_path / "e"), "endorsements_file")
    assert remedy in caught.value.remedy


def test_a_pipe_is_not_waited_for(tmp_path):
    """Only a regular file is read."""
    os.mkfifo(tmp_path / "e")
    for path in (tmp_path / "e", tmp_path):
        with pytest.raises(ConfigError):
            Shelf(path)
