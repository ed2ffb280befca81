"""Sealed exchanges from end to end, in process."""

import hashlib

import pytest
from confide_protocol import labels
from confide_protocol.receipt import ExpectedExchange, check_receipt
from confide_protocol.transcript import ResponseTranscript, request_commitment

from tests.unit.enclave.support import CHAT, Node, Sealed

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("shape", ["bucketed", "none"])
@pytest.mark.parametrize("stream", [True, False])
async def test_answer_opens_and_its_receipt_speaks_of_it(shape, stream):
    """A sealed chat request is answered, and the client can recompute all that the receipt commits to."""
    node = Node()
    statement = await node.statement_digest()
    sealed = Sealed(node, statement, {**CHAT, "stream": stream}, shape=shape)
    opened = sealed.open(await sealed.send(node))
    assert opened.status == 200
    said = "Paris is the capital."
    assert (opened.text if stream else opened.json["choices"][0]["message"]["content"]) == said
    transcript = ResponseTranscript(sealed.salt)
    transcript.head(opened.status, opened.content_type)
    for chunk in opened.events if stream else [opened.body]:
        transcript.chunk(chunk)
    check_receipt(
        opened.claims,
        ExpectedExchange(
            keyset=sealed.keyset,
            statement_digest=statement,
            policy_digest=b"\xab" * 32,
            nonce=opened.claims.client_asserted["nonce"],
            enc_digest=hashlib.sha256(sealed.header[7:]).digest(),
            request_commitment=request_commitment(sealed.salt, "POST", sealed.path, sealed.plain),
            response=transcript.finish([said.encode()]),
            shape=shape,
            suite="mlkem768-x25519/hkdf-sha256/aes-256-gcm",
            status=200,
            model="scripted",
        ),
    )
    assert opened.claims.outcome == "complete"
    assert opened.claims.completion_tokens == (8 if shape == labels.SHAPE_BUCKETED else 5)
