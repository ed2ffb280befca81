"""Reports through /dev/sev-guest, with a simulated driver behind the ioctl."""

import errno
import fcntl
from pathlib import Path

import pytest
from confide_enclave.collect.sev_guest import SNP_GET_EXT_REPORT, SNP_GET_REPORT, read_sev_guest
from confide_enclave.errors import DeviceUnavailable

from tests.unit.enclave.collect.kernel import SevGuest

DATA = bytes(range(64))
NO_FIRMWARE_CALL = 0xFFFF_FFFF


@pytest.fixture
def device(tmp_path):
    path = tmp_path / "sev-guest"
    path.touch()
    return path


def signed(data: bytes) -> bytes:
    return data + bytes(1184 - 64)


def test_a_report_comes_with_the_hosts_certificates(device):
    """One extended request gives both."""
    driver = SevGuest(signed, table=b"table")
    answer = read_sev_guest(DATA, path=device, ioctl=driver)
    assert answer.report == signed(DATA)
    assert answer.certificates.rstrip(b"\0") == b"table"
    assert driver.codes == [SNP_GET_EXT_REPORT]
    assert driver.vmpls == [0]


def test_certificates_that_do_not_fit_are_done_without(device):
    """The host's "too small" leads to a plain request."""
    driver = SevGuest(signed, extended_exitinfo2=1 << 32)
    answer = read_sev_guest(DATA, path=device, ioctl=driver)
    assert (answer.report, answer.certificates) == (signed(DATA), b"")
    assert driver.codes == [SNP_GET_EXT_REPORT, SNP_GET_REPORT]


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"exitinfo2": 1 << 32}, "not asked for"),
        ({"exitinfo2": 2 << 32}, "the host is busy"),
        ({"exitinfo2": 9 << 32}, "the host refused with error 0x9"),
        ({"exitinfo2": 0x16}, "the firmware refused with 0x16, invalid parameter"),
        ({"exitinfo2": 0x99}, "0x99, unknown"),
        ({"error": errno.ENOTTY, "exitinfo2": NO_FIRMWARE_CALL}, "disabled its key"),
        ({"error": errno.EINTR}, "Interrupted"),
        ({"status": 0x27}, "no"),
        ({"size": 1183}, "a report of 1183 bytes"),
    ],
)
def test_each_refusal_has_its_own_words(device, lie, said):
    """Host, firmware and driver are told apart; none gives bytes."""
    with pytest.raises(DeviceUnavailable, match="sev-guest: ") as caught:
        read_sev_guest(DATA, path=device, ioctl=SevGuest(signed, **lie))
    assert said in str(caught.value)


def test_an_absent_device_names_the_module(tmp_path):
    """The remedy is in the message."""
    with pytest.raises(DeviceUnavailable, match="modprobe sev-guest"):
        read_sev_guest(DATA, path=tmp_path / "sev-guest", ioctl=SevGuest(signed))


def test_the_real_system_call_refuses_another_device():
    """Request and code go through fcntl as they are; /dev/null knows neither."""
    with pytest.raises(DeviceUnavailable, match="/dev/null: the driver gives no reports"):
        read_sev_guest(DATA, path=Path("/dev/null"), ioctl=fcntl.ioctl)
