"""Options that several commands share, and reading what they name."""

from pathlib import Path

import click
from confide_attestation.checks.ids import CheckId
from confide_attestation.nvidia.ids import NvidiaCheck
from confide_attestation.result import AttestationResult
from confide_attestation.snp.ids import SnpCheck
from confide_attestation.tdx.ids import TdxCheck
from confide_protocol.errors import ConfigError

from confide.cli.render import utc

MAX_KEY_BYTES = 4096
TIME_CHECKS = frozenset(
    {
        CheckId.POLICY_EXPIRED,
        CheckId.STATEMENT_EXPIRED,
        CheckId.KEYSET_VALIDITY,
        SnpCheck.ARK_VALIDITY,
        SnpCheck.ASK_VALIDITY,
        SnpCheck.VEK_VALIDITY,
        SnpCheck.CRL_EXPIRED,
        SnpCheck.CRL_AGE,
        TdxCheck.PCK_EXPIRED,
        TdxCheck.TCB_SIGNING_CERT_EXPIRED,
        TdxCheck.CRL_NOT_YET_VALID,
        TdxCheck.CRL_EXPIRED,
        TdxCheck.TCB_INFO_NOT_YET_VALID,
        TdxCheck.TCB_INFO_EXPIRED,
        TdxCheck.QE_IDENTITY_NOT_YET_VALID,
        TdxCheck.QE_IDENTITY_EXPIRED,
        TdxCheck.COLLATERAL_TOO_OLD,
        NvidiaCheck.CHAIN_VALIDITY,
        NvidiaCheck.CHAIN_OCSP_EXPIRED,
        NvidiaCheck.RIM_VALIDITY,
        NvidiaCheck.RIM_OCSP_EXPIRED,
        NvidiaCheck.OCSP_AGE,
    }
)

api_key_file = click.option(
    "--api-key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that holds the gateway's API key.  [default: $CONFIDE_API_KEY]",
)
policy = click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Appraisal policy (TOML), a local file that you trust: it decides whom you talk to.",
)
allow_simulated = click.option(
    "--allow-simulated", is_flag=True, help="Let a policy of kind `simulated` accept simulated hardware."
)


def read_api_key(path: Path | None, environment: str | None) -> str | None:
    """Read a key from its file, or take it from the environment. Raises: ConfigError."""
    if path is None:
        return environment or None
    try:
        key = path.read_bytes()[: MAX_KEY_BYTES + 1].decode("ascii").strip()
    except OSError as fault:
        raise ConfigError(
            str(path), "--api-key-file", f"cannot be read ({fault.strerror}); name the key's file"
        ) from None
    except UnicodeDecodeError:
        key = ""
    if not key or len(key) > MAX_KEY_BYTES or not key.isprintable() or " " in key:
        raise ConfigError(str(path), "--api-key-file", "needs one line of visible ASCII: the key")
    return key


def clock_hint(result: AttestationResult) -> str:
    """Say so when nothing but times is wrong: then it may be this machine's clock."""
    if not result.failed or not all(check.id in TIME_CHECKS for check in result.failed):
        return ""
    return f"this machine's clock says {utc(result.judged_at_unix_s)}: set it if that is wrong"


def write_file(path: Path, data: bytes, option: str) -> None:
    """Write a file for its owner alone. Raises: ConfigError."""
    try:
        path.touch(mode=0o600)
        path.write_bytes(data)
    except OSError as fault:
        raise ConfigError(str(path), option, f"cannot be written ({fault.strerror}); choose another path") from None
