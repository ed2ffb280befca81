"""What a policy demands of dstack's event log."""

from confide_protocol.settings import Settings

from confide_attestation.policy_types import Hex32, NonEmpty


class DstackPolicy(Settings):
    """The applications that may run: SHA-256 of each accepted `app-compose.json`."""

    compose_hashes: NonEmpty[Hex32]
