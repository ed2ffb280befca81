"""The codec of TPM commands against a simulated vTPM, and its transport over a socket pair."""

import errno
import socket
import threading
from pathlib import Path

import pytest
from confide_attestation.vtpm.tpm import parse_attest
from confide_enclave.collect.tpm import Tpm, exchange, open_tpm
from confide_enclave.errors import DeviceUnavailable

from tests.unit.enclave.collect.vtpm import (
    AK,
    HCL_INDEX,
    NV_READ,
    NV_READ_PUBLIC,
    PCR_READ,
    QUOTE,
    Vtpm,
    in_session,
    sized,
)

PATH = Path("/dev/tpmrm0")
NONCE = bytes(range(32))


@pytest.fixture
def vtpm(azure_snp) -> Vtpm:
    return Vtpm(azure_snp, bytes(range(256)) * 10 + b"end")


def test_an_index_is_read_in_blocks(vtpm):
    """All 2,563 bytes, none twice."""
    assert Tpm(vtpm, PATH).read_nv(HCL_INDEX) == vtpm.hcl
    assert vtpm.commands == [NV_READ_PUBLIC] + [NV_READ] * 6


def test_a_quote_is_over_the_nonce(vtpm):
    """What comes back is the simulated AK's quote and its bare signature."""
    attest, signature = Tpm(vtpm, PATH).quote(AK, NONCE)
    assert parse_attest(attest).extra_data == NONCE
    assert len(signature) == 256


@pytest.mark.parametrize("at_once", [1, 8, 24])
def test_all_pcrs_are_read_however_many_come_at_once(vtpm, at_once):
    """A TPM gives eight, or any number."""
    vtpm.pcrs_at_once = at_once
    assert Tpm(vtpm, PATH).read_pcrs() == tuple(vtpm.azure.pcrs)


CALLS = {
    NV_READ_PUBLIC: lambda tpm: tpm.read_nv(HCL_INDEX),
    NV_READ: lambda tpm: tpm.read_nv(HCL_INDEX),
    QUOTE: lambda tpm: tpm.quote(AK, NONCE),
    PCR_READ: lambda tpm: tpm.read_pcrs(),
}


@pytest.mark.parametrize("code", list(CALLS))
@pytest.mark.parametrize(
    "bend",
    [
        lambda data: b"",
        lambda data: data[:9],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:2] + (len(data) + 1).to_bytes(4) + data[6:] + b"\0",
        lambda data: data[:1] + bytes([data[1] ^ 3]) + data[2:],
        lambda data: data[:2] + (len(data) - 3).to_bytes(4) + data[6:-3],
    ],
)
def test_a_malformed_answer_is_refused(vtpm, code, bend):
    """Truncated, prolonged or of another tag: no bytes of it are used."""
    vtpm.bends[code] = bend
    with pytest.raises(DeviceUnavailable, match="/dev/tpmrm0: the TPM's answer is malformed"):
        CALLS[code](Tpm(vtpm, PATH))


@pytest.mark.parametrize("code", list(CALLS))
def test_every_truncation_is_refused(vtpm, code):
    """Whatever is left away, the size of the answer being right again, is missed."""
    whole = []
    vtpm.bends[code] = lambda data: whole.append(data) or data
    CALLS[code](Tpm(vtpm, PATH))
    for end in range(10, len(whole[0]), 7):
        vtpm.bends[code] = lambda data, end=end: data[:2] + end.to_bytes(4) + data[6:end]
        with pytest.raises(DeviceUnavailable):
            CALLS[code](Tpm(vtpm, PATH))


@pytest.mark.parametrize("code", list(CALLS))
@pytest.mark.parametrize(("status", "said"), [(0x18B, "no Azure confidential VM"), (0x922, "refused")])
def test_a_refusal_says_what_was_refused(vtpm, code, status, said):
    """A missing handle means another machine; any other code is shown."""
    vtpm.refusals[code] = status
    with pytest.raises(DeviceUnavailable, match=said):
        CALLS[code](Tpm(vtpm, PATH))


def test_an_unknown_index_is_another_machine(vtpm):
    """The TPM of a laptop has no HCL report."""
    with pytest.raises(DeviceUnavailable, match="has no NV index 0x01400009"):
        Tpm(vtpm, PATH).read_nv(0x0140_0009)


@pytest.mark.parametrize(
    ("code", "old", "new", "said"),
    [
        (QUOTE, b"\0\x14\0\x0b\x01\0", b"\0\x16\0\x0b\x01\0", "does not sign by RSASSA"),
        (PCR_READ, b"\0\0\0\x01\0\x0b\x03", b"\0\0\0\x01\0\x04\x03", "no bank of SHA-256"),
        (PCR_READ, b"\x03\xff\0\0", b"\x03\0\0\0", "malformed"),
        (PCR_READ, b"\x03\xff\0\0", b"\x03\xff\xff\0", "malformed"),
        (NV_READ_PUBLIC, (2563).to_bytes(2), (0xFFFF).to_bytes(2), "not at most 8192"),
    ],
)
def test_a_wrong_field_is_refused(vtpm, code, old, new, said):
    """Another algorithm, no bank, no PCR, too many, an index too large."""

    def bend(data):
        assert old in data
        return data.replace(old, new, 1)

    vtpm.bends[code] = bend
    with pytest.raises(DeviceUnavailable, match=said):
        CALLS[code](Tpm(vtpm, PATH))


def test_a_block_of_another_size_is_refused(vtpm):
    """A TPM that gives less than was asked for is not asked again and again."""
    vtpm.bends[NV_READ] = lambda data: in_session(sized(b"short"))
    with pytest.raises(DeviceUnavailable, match="malformed"):
        Tpm(vtpm, PATH).read_nv(HCL_INDEX)


def test_commands_travel_whole_over_a_file_descriptor(vtpm):
    """One write, one read, as the kernel's resource manager wants it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def serve() -> None:
        while command := theirs.recv(4096):
            theirs.send(vtpm(command))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        tpm = Tpm(lambda command: exchange(ours.fileno(), command, PATH), PATH)
        assert tpm.read_nv(HCL_INDEX) == vtpm.hcl
    finally:
        ours.close()
        thread.join()
        theirs.close()


def test_a_tpm_that_goes_away_is_a_clear_fault(monkeypatch, tmp_path):
    """An error of the kernel names the path."""
    path = tmp_path / "tpmrm0"
    path.touch()
    with open_tpm(path) as run:
        assert run(b"command") == b""

        with monkeypatch.context() as patch:
            patch.setattr("os.write", lambda handle, data: len(data) - 1)
            with pytest.raises(DeviceUnavailable, match="took only a part"):
                run(b"command")

        def fail(handle, size):
            raise OSError(errno.EIO, "x")

        monkeypatch.setattr("os.read", fail)
        with pytest.raises(DeviceUnavailable, match=r"tpmrm0: Input/output error"):
            run(b"command")


def test_an_absent_tpm_names_the_remedy(tmp_path):
    """The remedy is in the message."""
    with (
        pytest.raises(DeviceUnavailable, match="tpmrm0: No such file or directory; it needs an Azure"),
        open_tpm(tmp_path / "tpmrm0"),
    ):
        pass
