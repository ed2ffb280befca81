"""EHBP (Encrypted HTTP Body Protocol) for clients nobody here wrote, off unless it is turned on (SPEC 11)."""

from confide_enclave.ehbp.exchange import Foreign, StaleKey

__all__ = ["Foreign", "StaleKey"]
