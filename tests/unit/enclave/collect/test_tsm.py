"""Reports through configfs-tsm, with a simulated kernel behind it."""

import errno
import itertools

import pytest
from confide_enclave.collect.tsm import Provider, TsmReport, read_tsm
from confide_enclave.errors import DeviceUnavailable

from tests.unit.enclave.collect.kernel import ROOT, Tsm

DATA = bytes(range(64))


def ask(tsm: Tsm, provider: Provider = Provider.SNP) -> TsmReport:
    numbers = itertools.count(1)
    return read_tsm(DATA, provider, root=ROOT, files=tsm, random=lambda size: next(numbers).to_bytes(size))


def signed(data: bytes) -> bytes:
    return b"signed:" + data


@pytest.mark.parametrize("provider", list(Provider))
def test_a_report_comes_through_an_entry_of_its_own(provider):
    """The entry has a random name, and is gone afterwards."""
    tsm = Tsm(signed, provider=provider.value, auxblob=b"table")
    assert ask(tsm, provider) == TsmReport(signed(DATA), b"table")
    assert tsm.made == [ROOT / "confide-0000000000000001"]
    assert tsm.entries == {}


def test_a_kernel_without_auxblob_offers_nothing():
    """The attribute is optional."""
    assert ask(Tsm(signed, auxblob=None)).auxblob == b""


def test_under_an_svsm_the_lowest_level_is_asked_for():
    """A floor above 0 is written to privlevel, and counts as a write."""
    assert ask(Tsm(signed, floor=2)).outblob == signed(DATA)
    assert ask(Tsm(signed, floor=0)).outblob == signed(DATA)


@pytest.mark.parametrize("lie", [{"foreign_writes": 1}, {"lost_writes": 1}, {"errors": {"outblob": [errno.EBUSY]}}])
def test_what_passes_is_tried_again_with_a_new_entry(lie):
    """A foreign write, a lost write and a busy device cost one attempt."""
    tsm = Tsm(signed, **lie)
    assert ask(tsm).outblob == signed(DATA)
    assert len(tsm.made) == 2
    assert tsm.entries == {}


@pytest.mark.parametrize(
    "lie", [{"foreign_writes": 9}, {"lost_writes": 9}, {"errors": {"outblob": [errno.EINTR] * 9}}]
)
def test_what_does_not_pass_is_given_up(lie):
    """Three attempts, no bytes, nothing left behind."""
    tsm = Tsm(signed, **lie)
    with pytest.raises(DeviceUnavailable, match="3 times"):
        ask(tsm)
    assert len(tsm.made) == 3
    assert tsm.entries == {}


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"mounted": False}, "mount -t configfs"),
        ({"errors": {"mkdir": [errno.ENXIO]}}, "modprobe sev_guest"),
        ({"errors": {"mkdir": [errno.EACCES]}}, "permission denied"),
        ({"provider": "tdx_guest"}, "its provider is 'tdx_guest', not sev_guest"),
        ({"errors": {"inblob": [errno.EIO]}}, "Input/output error"),
        ({"errors": {"outblob": [errno.EFBIG]}}, "File too large"),
        ({"errors": {"auxblob": [errno.EIO]}}, "Input/output error"),
        ({"errors": {"generation": [errno.EIO]}}, "Input/output error"),
        ({"auxblob": bytes(64 * 1024 + 1)}, "File too large"),
    ],
)
def test_a_fault_names_the_path_and_leaves_nothing_behind(lie, said):
    """Each fault is one clear line; the entry is removed."""
    tsm = Tsm(signed, **lie)
    with pytest.raises(DeviceUnavailable, match=str(ROOT)) as caught:
        ask(tsm)
    assert said in str(caught.value)
    assert tsm.entries == {}


def test_a_number_that_is_none_is_refused():
    """A generation that cannot be read is no reason to trust the answer."""

    class Odd(Tsm):
        def read(self, path, limit):
            return b"x" if path.name == "generation" else super().read(path, limit)

    with pytest.raises(DeviceUnavailable, match="its generation is no number"):
        ask(Odd(signed))


def test_an_entry_that_stays_does_not_hide_the_answer():
    """A failing rmdir is the kernel's business."""
    assert ask(Tsm(signed, errors={"rmdir": [errno.EBUSY]})).outblob == signed(DATA)
