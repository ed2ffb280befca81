"""What vendors say of this machine's hardware: offered beside the evidence, never believed here."""

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import Endorsements, SnpEndorsements, parse_endorsements
from confide_protocol.errors import ConfigError

# The rest of a bundle of evidence needs its place too.
MAX_ENDORSEMENTS_BYTES: Final = 2 << 20
NOTHING: Final = Endorsements()
_FIELD: Final = "endorsements_file"


class Shelf:
    """The endorsements at hand, from a file and from the gateway: for each vendor the latest are offered.

    The file is read again when it has changed. One that has become unreadable changes nothing but the log.
    """

    def __init__(self, file: Path | None = None) -> None:
        """Read the file. Raises: ConfigError."""
        self._file = file
        self._seen: tuple[int, ...] = ()
        self._current = NOTHING
        self._log = structlog.get_logger()
        if file is not None:
            self._seen = _mark(file)
            self._current = read_endorsements(file)

    @property
    def current(self) -> Endorsements:
        if self._file is not None and (mark := _mark(self._file)) != self._seen:
            self._seen = mark
            try:
                self.take(read_endorsements(self._file))
            except ConfigError as fault:
                self._log.warning("endorsements.kept", reason=str(fault))
            else:
                self._log.info("endorsements.read")
        return self._current

    def take(self, endorsements: Endorsements) -> None:
        """Put what is new over what is there, vendor by vendor."""
        self._current = overlay(self._current, endorsements)

    def beside(self, own: Endorsements) -> Endorsements:
        """Return what goes into a bundle. What came with a report fits it best and goes first."""
        return overlay(self.current, own)


def overlay(below: Endorsements, above: Endorsements) -> Endorsements:
    """Take each vendor's from `above` where it has them; an AMD key without its chain takes the chain below."""
    return Endorsements(
        snp=_snp(below.snp, above.snp), tdx=above.tdx or below.tdx, nvidia=above.nvidia or below.nvidia
    )


def _snp(below: SnpEndorsements | None, above: SnpEndorsements | None) -> SnpEndorsements | None:
    if below is None or above is None:
        return above or below
    return replace(above, ask=above.ask or below.ask, ark=above.ark or below.ark, crl=above.crl or below.crl)


def read_endorsements(file: Path) -> Endorsements:
    """Read what `confide endorsements export` wrote. Raises: ConfigError. Does not check: any signature."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ConfigError(str(file), _FIELD, "is not a regular file; name one that was exported")
            with os.fdopen(handle, "rb", closefd=False) as stream:
                data = stream.read(MAX_ENDORSEMENTS_BYTES + 1)
        finally:
            os.close(handle)
    except OSError as fault:
        remedy = f"cannot be read ({fault.strerror}); write it with: confide endorsements export"
        raise ConfigError(str(file), _FIELD, remedy) from None
    if len(data) > MAX_ENDORSEMENTS_BYTES:
        raise ConfigError(
            str(file), _FIELD, f"is larger than {MAX_ENDORSEMENTS_BYTES} bytes; is it the right file?"
        )
    try:
        return parse_endorsements(data)
    except EvidenceMalformed as fault:
        raise ConfigError(str(file), _FIELD, f"is no file of endorsements: {fault}") from None


def _mark(file: Path) -> tuple[int, ...]:
    """Tell one version of a file from the next."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return (status.st_ino, status.st_mtime_ns, status.st_size)
