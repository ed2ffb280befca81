"""What sealing costs: a request, a response chunk, a receipt; HPKE beside `cryptography`'s own single shot."""

import os
from collections.abc import Iterator
from itertools import count

from confide_protocol import hpke
from confide_protocol.hpke import REQUIRED, AeadId, KemId, PrivateKey, Suite
from confide_protocol.keyconfig import KeyConfig
from confide_protocol.keyset import Keyset
from confide_protocol.ohttp import RequestOpener, RequestSealer, ResponseSealer
from confide_protocol.receipt import ReceiptClaims, sign_receipt, verify_receipt
from confide_protocol.transcript import ResponseTranscript
from cryptography.hazmat.primitives import hpke as peer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.bench import Row, ours, versus
from tests.bench.timing import Work, interleaved_us

REQUEST = os.urandom(1024)
CHUNK = os.urandom(150)
INFO = b"tests.bench.crypto"
X25519_SUITE = Suite(KemId.X25519, AeadId.AES_256_GCM)
PEER = "cryptography_suite"
TheirKey = peer.MLKEM768X25519PrivateKey | X25519PrivateKey


def rows(quick: bool) -> list[Row]:
    rounds, calls = (2, 20) if quick else (15, 200)
    return [*exchange(rounds, calls), *receipts(quick), *single_shots(rounds, calls)]


def exchange(rounds: int, calls: int) -> Iterator[Row]:
    """The crypto of one sealed exchange, each side; the enclave's as the aim of issue 2 counts it."""
    key = PrivateKey.generate(REQUIRED.kem, os.urandom(32))
    keys = {1: (REQUIRED, key)}
    config = KeyConfig(1, REQUIRED.kem, key.public, ((hpke.HKDF_SHA256, REQUIRED.aead),))
    signer, signed = Ed25519PrivateKey.generate(), os.urandom(700)

    def seal_request() -> tuple[RequestSealer, bytes]:
        sealer = RequestSealer(config, REQUIRED, os.urandom(32))
        return sealer, sealer.header + sealer.seal(REQUEST, final=True)

    client, sealed = seal_request()

    def serve() -> ResponseSealer:
        opener = RequestOpener(keys)
        opener.push(sealed)
        opener.finish()
        signer.sign(signed)
        return opener.response_sealer(os.urandom(32))

    response = serve()
    opener = client.response_opener()
    opener.push(response.prefix)
    waiting = iter([response.seal(CHUNK) for _ in range(rounds * calls + 1)])
    transcript = ResponseTranscript(os.urandom(32))
    transcript.head(200, "text/event-stream")
    works: dict[str, Work] = {
        "enclave.crypto_request_us": serve,
        "enclave.crypto_chunk_us": lambda: response.seal(CHUNK),
        "enclave.transcript_chunk_us": lambda: transcript.chunk(CHUNK),
        "client.crypto_request_us": seal_request,
        "client.crypto_chunk_us": lambda: opener.push(next(waiting)),
    }
    for name, least in interleaved_us(works, rounds=rounds, calls=calls).items():
        yield ours(name, least, "us")


def receipts(quick: bool) -> Iterator[Row]:
    """Both signatures of a receipt, made and checked: once a response, off the event loop."""
    # ML-DSA draws again until a signature fits: only the mean over many messages says what one costs.
    rounds, calls = (1, 50) if quick else (3, 400)
    ed25519, ml_dsa_65 = Ed25519PrivateKey.generate(), MLDSA65PrivateKey.generate()
    keyset = Keyset(
        ohttp_keys=os.urandom(1230),
        receipt_ed25519=ed25519.public_key().public_bytes_raw(),
        receipt_ml_dsa_65=ml_dsa_65.public_key().public_bytes_raw(),
        usage_ed25519=os.urandom(32),
        manifest_digest=os.urandom(32),
        not_before_unix_s=1_800_000_000,
        not_after_unix_s=1_800_003_600,
        simulated=True,
    )
    claims = _claims(keyset)
    receipt = sign_receipt(claims, ed25519, ml_dsa_65)
    serial = count(claims.issued_unix_s)
    works: dict[str, Work] = {
        "enclave.receipt_sign_us": lambda: sign_receipt(
            _claims(keyset, issued_unix_s=next(serial)), ed25519, ml_dsa_65
        ),
        "client.receipt_verify_us": lambda: verify_receipt(receipt, keyset),
    }
    for name, least in interleaved_us(works, rounds=rounds, calls=calls).items():
        yield ours(name, least, "us")


def single_shots(rounds: int, calls: int) -> Iterator[Row]:
    """One sealed kilobyte: context set-up and one message, ours beside the library's one-call form."""
    x25519, ml_kem = X25519PrivateKey.generate(), MLKEM768PrivateKey.generate()
    hybrid = peer.MLKEM768X25519PrivateKey(ml_kem, x25519)
    for suite, name, kem, theirs, key in (
        (REQUIRED, "", peer.KEM.MLKEM768_X25519, hybrid, PrivateKey(KemId.X_WING, x25519, ml_kem)),
        (X25519_SUITE, "x25519_", peer.KEM.X25519, x25519, PrivateKey(KemId.X25519, x25519, None)),
    ):
        seals, opens = _single_shot(
            suite, key, peer.Suite(kem, peer.KDF.HKDF_SHA256, peer.AEAD.AES_256_GCM), theirs
        )
        for verb, works in (("seal", seals), ("open", opens)):
            least = interleaved_us(works, rounds=rounds, calls=calls)
            yield versus(f"enclave.hpke_{name}{verb}_us", least["ours"], "us", PEER, least[PEER])


def _single_shot(
    suite: Suite, key: PrivateKey, their_suite: peer.Suite, theirs: TheirKey
) -> tuple[dict[str, Work], dict[str, Work]]:
    their_public = theirs.public_key()

    def seal() -> bytes:
        enc, context = hpke.setup_base_sender(suite, key.public, INFO, os.urandom(32))
        return enc + context.seal(b"", REQUEST)

    sealed = seal()

    def open_() -> bytes:
        enc, ciphertext = sealed[: suite.kem.enc_bytes], sealed[suite.kem.enc_bytes :]
        return hpke.setup_base_recipient(suite, key, enc, INFO).open(b"", ciphertext)

    def their_open() -> bytes:
        return their_suite.decrypt(sealed, theirs, info=INFO)

    assert open_() == their_open() == REQUEST  # one scheme: the figures are of the same work
    return (
        {"ours": seal, PEER: lambda: their_suite.encrypt(REQUEST, their_public, info=INFO)},
        {"ours": open_, PEER: their_open},
    )


def _claims(keyset: Keyset, issued_unix_s: int = 1_800_000_100) -> ReceiptClaims:
    digest = os.urandom(32)
    return ReceiptClaims(
        keyset_digest=keyset.digest,
        statement_digest=digest,
        manifest_digest=keyset.manifest_digest,
        request_commitment=digest,
        response_commitment=digest,
        transcript_root=digest,
        chunk_count=66,
        message_count=1,
        enc_digest=digest,
        model="smollm2-135m-instruct",
        outcome="complete",
        status=200,
        sampling={"temperature": "0.7", "top_p": "0.95", "max_tokens": 256, "stop_count": 0},
        seed=7,
        engine_mode="torch-cpu",
        suite=REQUIRED.name,
        shape="bucketed",
        prompt_tokens=32,
        completion_tokens=64,
        issued_unix_s=issued_unix_s,
        simulated=keyset.simulated,
        client_asserted={"nonce": digest, "policy": digest},
    )
