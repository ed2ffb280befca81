"""Whether this Python can seal and verify at all; found out before anything is sent."""

from functools import cache

import cryptography

from confide.errors import RuntimeUnfit

REMEDY = "install cryptography 50.0.2 or newer from its wheels, whose OpenSSL has ML-KEM and ML-DSA"


@cache
def demand_cryptography() -> None:
    """Raises: RuntimeUnfit naming what is missing and how to get it."""
    try:
        from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem
    except ImportError:
        raise _unfit("neither ML-KEM nor ML-DSA") from None
    missing = []
    for name, make in (
        ("ML-KEM-768", mlkem.MLKEM768PrivateKey.generate),
        ("ML-DSA-65", mldsa.MLDSA65PrivateKey.generate),
    ):
        try:
            make()
        except Exception:  # noqa: BLE001 - whatever a build without it raises, it cannot do it
            missing.append(name)
    if missing:
        raise _unfit("no " + " and no ".join(missing))


def _unfit(lack: str) -> RuntimeUnfit:
    return RuntimeUnfit("cryptography", cryptography.__version__, f"has {lack} here; {REMEDY}")
