"""openai over tinfoil-ehbp's transports, unmodified: chat, stream, Responses, models, errors; sync and async."""

import os

from ehbp_peer import Peer

QUESTION = "What is the capital of France? Answer in one sentence."
MODEL = "smollm2-135m-instruct"

peer = Peer()
assert len(bytes.fromhex(peer.discover(os.environ["CONFIDE_URL"], os.environ["CONFIDE_API_KEY"])["key"])) == 32
said = peer.openai(MODEL, QUESTION)
assert "Paris" in said["plain"]
assert said["plain"] == said["streamed"] == said["async"]
assert said["receipt"]
assert said["responses"]
assert said["usage"] > 0
assert MODEL in said["models"]
assert said["refused"] == "model_not_found"
print("openai over tinfoil-ehbp")
