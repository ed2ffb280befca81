"""TDREPORTs through /dev/tdx_guest, with a simulated driver behind the ioctl."""

import errno
import fcntl
from pathlib import Path

import pytest
from confide_enclave.collect.tdx_guest import read_tdreport
from confide_enclave.errors import DeviceUnavailable

from tests.unit.enclave.collect.kernel import TdxGuest

DATA = bytes(range(64))


@pytest.fixture
def device(tmp_path):
    path = tmp_path / "tdx_guest"
    path.touch()
    return path


def test_a_report_holds_what_was_asked(device):
    """1,024 bytes, ours among them."""
    report = read_tdreport(DATA, path=device, ioctl=TdxGuest())
    assert len(report) == 1024
    assert report[128:192] == DATA


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"error": errno.EIO}, "Input/output error"),
        ({"head": b"\0\0\0\0"}, "no TDREPORT"),
        ({"report_data": bytes(64) + b""}, "another question"),
    ],
)
def test_a_wrong_answer_is_refused(device, lie, said):
    """A fault, another kind, another question."""
    with pytest.raises(DeviceUnavailable, match="tdx_guest: ") as caught:
        read_tdreport(DATA, path=device, ioctl=TdxGuest(**lie))
    assert said in str(caught.value)


def test_an_absent_device_names_the_module(tmp_path):
    """The remedy is in the message."""
    with pytest.raises(DeviceUnavailable, match="modprobe tdx_guest"):
        read_tdreport(DATA, path=tmp_path / "tdx_guest", ioctl=TdxGuest())


def test_the_real_system_call_refuses_another_device():
    """Request and code go through fcntl as they are; /dev/null knows neither."""
    with pytest.raises(DeviceUnavailable, match="/dev/null: Inappropriate ioctl"):
        read_tdreport(DATA, path=Path("/dev/null"), ioctl=fcntl.ioctl)
