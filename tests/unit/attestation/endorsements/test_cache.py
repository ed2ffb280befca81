"""The cache: whole or absent, its owner's alone, bounded, never believed."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.simulated.amd import SimulatedAmd
from confide_endorsements import cache as cache_module
from confide_endorsements.cache import Cache, default_dir
from confide_endorsements.documents import Kind, Name
from confide_protocol.errors import ConfigError

from tests.unit.attestation.endorsements.conftest import NOW

URL = "https://kds.invalid/"


def name(document_id: str = "Genoa/1", kind: Kind = Kind.AMD_VCEK) -> Name:
    return Name(kind, document_id, URL + document_id)


@pytest.fixture
def kept(cache: Cache, amd: SimulatedAmd) -> Path:
    """Keep one document and return the path of its bytes."""
    cache.put(name(), amd.vek, now_unix_s=NOW)
    (path,) = (cache.folder / "objects").iterdir()
    return path


def test_what_was_kept_is_found_with_its_end(cache: Cache, kept: Path, amd: SimulatedAmd) -> None:
    """The end is the certificate's own; another id finds nothing."""
    found = cache.find(Kind.AMD_VCEK, "Genoa/1")
    assert found is not None
    assert (found.data, found.fetched_at, found.expires_at) == (amd.vek, NOW, amd.not_after_unix_s)
    assert cache.find(Kind.AMD_VCEK, "Genoa/2") is None
    assert cache.find(Kind.AMD_CRL, "Genoa/1") is None


def test_everything_is_its_owners_alone(cache: Cache, kept: Path) -> None:
    """0700 and 0600."""
    for path in (cache.folder, *cache.folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "swapped"])
def test_a_damaged_object_counts_as_absent(
    cache: Cache, kept: Path, amd: SimulatedAmd, told: list[str], damage: str
) -> None:
    """Said so with its path; putting it anew heals it."""
    data = kept.read_bytes()
    if damage == "gone":
        kept.unlink()
    else:
        kept.write_bytes({"flip": b"\0" + data[1:], "cut": data[:-1], "swapped": amd.ask}[damage])
    assert cache.find(Kind.AMD_VCEK, "Genoa/1") is None
    assert "damaged or gone" in told[0]
    assert kept.name in told[0]
    cache.put(name(), amd.vek, now_unix_s=NOW)
    assert cache.find(Kind.AMD_VCEK, "Genoa/1") is not None


def test_a_document_under_the_wrong_kind_counts_as_absent(cache: Cache, kept: Path, told: list[str]) -> None:
    """The index may say what it wants; the bytes decide."""
    path = cache.folder / "index.json"
    path.write_text(path.read_text().replace("amd-vcek", "amd-crl"))
    assert cache.find(Kind.AMD_CRL, "Genoa/1") is None
    assert "counts as absent" in told[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"version": 2, "documents": {}}',
        '{"version": 1, "documents": []}',
        '{"version": 1, "documents": {"odd-kind x": {}}}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_a_damaged_index_counts_as_empty(cache: Cache, kept: Path, told: list[str], text: str) -> None:
    """Said so, and written anew at the next document."""
    (cache.folder / "index.json").write_text(text, encoding="latin-1")
    assert cache.entries() == {}
    assert "damaged" in told[0]


@pytest.mark.parametrize(
    "changed",
    [
        {"sha256": "../../etc/passwd"},
        {"sha256": "A" * 64},
        {"size": -1},
        {"size": True},
        {"fetched_at": "now"},
        {"url": "x" * 2000},
        {"url": "a\x1b[2J"},
        {"more": 1},
    ],
)
def test_no_entry_leads_out_of_the_cache(
    cache: Cache, kept: Path, told: list[str], changed: dict[str, object]
) -> None:
    """A path in the place of a digest, odd numbers, unprintable text: the index is damaged."""
    path = cache.folder / "index.json"
    tree = json.loads(path.read_text())
    tree["documents"]["amd-vcek Genoa/1"] |= changed
    path.write_text(json.dumps(tree))
    assert cache.find(Kind.AMD_VCEK, "Genoa/1") is None
    assert len(told) == 1


def test_what_is_no_document_is_not_kept(cache: Cache, amd: SimulatedAmd) -> None:
    """Nor is any that came with it."""
    with pytest.raises(EvidenceMalformed):
        cache.put_all([(name(), amd.vek, NOW), (name(kind=Kind.AMD_CRL), b"junk", NOW)], now_unix_s=NOW)
    with pytest.raises(EvidenceMalformed, match="too large"):
        cache.put(name(), bytes(2 << 20), now_unix_s=NOW)
    assert cache.entries() == {}


def test_a_full_cache_drops_what_ended_and_then_the_oldest(tmp_path: Path, amd: SimulatedAmd) -> None:
    """By number and by size, objects too."""
    cache = Cache(tmp_path, max_documents=2)
    lists = [amd.crl(issued_unix_s=NOW - 9, next_update_unix_s=NOW + each) for each in (5, 9_000, 9_001, 9_002)]
    for at, data in enumerate(lists):
        cache.put(name(f"{at}", Kind.AMD_CRL), data, now_unix_s=NOW + 10 * at)
    assert set(cache.entries()) == {"amd-crl 2", "amd-crl 3"}
    assert len(list((tmp_path / "objects").iterdir())) == 2
    small = Cache(tmp_path, max_bytes=len(lists[3]) + 10)
    small.put(name("4", Kind.AMD_CRL), lists[0], now_unix_s=NOW)
    assert set(small.entries()) == {"amd-crl 3"}


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path, amd: SimulatedAmd) -> None:
    """Each takes its turn; none overwrites what another kept."""

    def put(n: int) -> None:
        Cache(tmp_path / "cache").put(name(f"{n}"), amd.vek if n % 2 else amd.ask, now_unix_s=NOW)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(24)))
    cache = Cache(tmp_path / "cache")
    assert len(cache.entries()) == 24
    assert all(cache.find(Kind.AMD_VCEK, f"{n}") for n in range(24))


def test_a_write_that_fails_leaves_what_was_there(
    cache: Cache, kept: Path, amd: SimulatedAmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that names the folder; the old index still counts."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        cache.put(name("Genoa/2"), amd.ask, now_unix_s=NOW)
    monkeypatch.undo()
    assert set(cache.entries()) == {"amd-vcek Genoa/1"}
    assert len(list((cache.folder / "objects").iterdir())) == 1


def test_a_folder_that_cannot_be_one(tmp_path: Path, amd: SimulatedAmd) -> None:
    """A file in its place is named with the remedy."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--cache"):
        Cache(tmp_path / "file").put(name(), amd.vek, now_unix_s=NOW)


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path, amd: SimulatedAmd) -> None:
    """Given by mistake: nothing is written, removed or given other rights."""
    tmp_path.chmod(0o755)
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "mine").touch()
    (tmp_path / "thesis").touch()
    with pytest.raises(ConfigError, match="other files"):
        Cache(tmp_path).put(name(), amd.vek, now_unix_s=NOW)
    assert {path.name for path in tmp_path.rglob("*")} == {"objects", "mine", "thesis"}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    (tmp_path / "thesis").unlink()
    Cache(tmp_path).put(name(), amd.vek, now_unix_s=NOW)
    assert (tmp_path / "objects" / "mine").exists()


def test_the_default_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG's variable if it is absolute, else below the home directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_dir() == tmp_path / "confide" / "endorsements"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_dir() == tmp_path / "home" / ".cache" / "confide" / "endorsements"


@pytest.mark.parametrize("fetched_at", [NOW + 1, 2**53, 2**62])
def test_nothing_was_fetched_in_the_time_to_come(cache: Cache, amd: SimulatedAmd, fetched_at: int) -> None:
    """Whatever an imported file says, a document is no younger than its import."""
    cache.put_all([(name(), amd.vek, fetched_at)], now_unix_s=NOW)
    found = cache.find(Kind.AMD_VCEK, "Genoa/1")
    assert found is not None
    assert found.fetched_at == NOW


@pytest.mark.parametrize("field", ["fetched_at", "expires_at", "size"])
def test_an_index_whose_numbers_are_no_dates_is_damaged(
    cache: Cache, kept: Path, told: list[str], field: str
) -> None:
    """Nothing that reads it has to write the year 100,000."""
    index = cache.folder / "index.json"
    tree = json.loads(index.read_text())
    tree["documents"]["amd-vcek Genoa/1"][field] = 2**53
    index.write_text(json.dumps(tree))
    assert cache.entries() == {}
    assert "damaged" in told[0]
