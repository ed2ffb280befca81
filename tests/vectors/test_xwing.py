"""draft-connolly-cfrg-xwing-kem: key generation and decapsulation match all published vectors.

`cryptography` takes no randomness for ML-KEM, so of encapsulation only the X25519 half is replayed.
"""

import json

from confide_protocol import hpke
from confide_protocol.hpke import KemId, PrivateKey

from tests.shared import shared_path
from tests.vectors.conftest import Tally
from tests.vectors.test_hpke import raw


def test_every_xwing_vector(tally: Tally) -> None:
    """The seed gives the public key, and the ciphertext the shared secret."""
    vectors = json.loads(shared_path("vectors", "xwing", "test-vectors.json").read_text())
    assert len(vectors) == 3
    for vector in vectors:
        key = PrivateKey.generate(KemId.X_WING, raw(vector, "sk"))
        assert raw(vector, "seed") == raw(vector, "sk")
        assert key.public == raw(vector, "pk")
        assert key.decapsulate(raw(vector, "ct")) == raw(vector, "ss")
        secret, ciphertext = hpke.encapsulate(KemId.X_WING, key.public, raw(vector, "eseed")[32:])
        assert ciphertext[1088:] == raw(vector, "ct")[1088:]
        assert key.decapsulate(ciphertext) == secret
        tally("xwing/test-vectors.json", None)
