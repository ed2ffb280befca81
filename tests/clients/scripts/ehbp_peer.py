"""tinfoil-ehbp, unmodified, asked in JSON lines; a relay of our own making may stand between it and the network."""

import asyncio
import base64
import json
import sys

import ehbp
import httpx
import openai
from ehbp.protocol import ENCAPSULATED_KEY_HEADER

LENGTH = 4


def frames_of(body: bytes) -> list[bytes]:
    found = []
    while body:
        end = LENGTH + int.from_bytes(body[:LENGTH], "big")
        found.append(body[:end])
        body = body[end:]
    return found


def spoilt(frame: bytes) -> bytes:
    return frame[:-1] + bytes([frame[-1] ^ 1])


# What somebody on the way may do to an answer's frames.
ANSWERS = {
    "cut": lambda frames: frames[:1],
    "torn": lambda frames: [*frames[:-1], frames[-1][:-1]],
    "changed": lambda frames: [*frames[:1], spoilt(frames[1]), *frames[2:]],
    "swapped": lambda frames: [frames[1], frames[0], *frames[2:]],
    "dropped": lambda frames: [frames[0], *frames[2:]],
}
# And to a request's.
REQUESTS = {
    "request changed": lambda frames: [spoilt(frames[0]), *frames[1:]],
    "request cut": lambda frames: frames[:-1],
    "request torn": lambda frames: [*frames[:-1], frames[-1][:-1]],
}


class Between(httpx.BaseTransport):
    """Honest but for `harm`. Keeps what passed last."""

    def __init__(self) -> None:
        self.inner = httpx.HTTPTransport()
        self.harm = ""
        self.last: tuple[httpx.Headers, bytes] | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        if self.harm in REQUESTS:
            body = b"".join(REQUESTS[self.harm](frames_of(body)))
        headers = httpx.Headers({**request.headers, "content-length": str(len(body))})
        headers.pop("transfer-encoding", None)
        if ENCAPSULATED_KEY_HEADER in headers:
            self.last = headers, body
        response = self.inner.handle_request(
            httpx.Request(request.method, request.url, headers=headers, content=body)
        )
        if self.harm not in ANSWERS:
            return response
        whole = b"".join(response.stream)
        changed = b"".join(ANSWERS[self.harm](frames_of(whole)))
        kept = {name: value for name, value in response.headers.items() if name != "transfer-encoding"}
        return httpx.Response(response.status_code, headers=kept, stream=httpx.ByteStream(changed))


class Peer:
    def __init__(self) -> None:
        self.between = Between()
        self.url = self.key = ""

    def discover(self, url: str, key: str) -> dict:
        try:
            found = ehbp.Client.discover(url)
        except ehbp.EHBPError as fault:
            return {"error": str(fault)}
        return self.use(url, key, found.server_identity)

    def start(self, url: str, key: str, public: str) -> dict:
        """Use a public key that is known, in place of the one that is shown."""
        return self.use(url, key, ehbp.ServerIdentity.from_public_key_hex(public))

    def use(self, url: str, key: str, identity: ehbp.ServerIdentity) -> dict:
        self.url, self.key, self.identity = url, key, identity
        self.bearer = {"authorization": f"Bearer {key}"}
        transport = ehbp.EHBPTransport(self.identity, inner=self.between)
        self.http = httpx.Client(base_url=url, headers=self.bearer, transport=transport, timeout=60)
        return {"key": self.identity.public_key_hex()}

    def post(self, path: str, body: dict, harm: str = "") -> dict:
        """Post by the transport, which is what other HTTP clients stand on."""
        self.between.harm = harm
        try:
            got = self.http.post(path, json=body)
            return {"status": got.status_code, "body": base64.b64encode(got.content).decode()}
        except ehbp.EHBPError as fault:
            return {"error": fault.code.value}
        finally:
            self.between.harm = ""

    def convenience(self, path: str, body: dict) -> dict:
        """Post by the package's own client, whole and as a stream."""
        with ehbp.Client(self.url, self.identity) as client:
            whole = client.post(path, json_body=body, headers=self.bearer)
            with client.stream("POST", path, json_body={**body, "stream": True}, headers=self.bearer) as stream:
                pieces = list(stream)
        return {
            "status": whole.status_code,
            "body": base64.b64encode(whole.content).decode(),
            "pieces": len(pieces),
        }

    def replay(self, path: str) -> dict:
        """Send once more what passed last."""
        headers, body = self.between.last
        with httpx.Client(timeout=60) as client:
            got = client.post(self.url + path, content=body, headers=headers)
        return {"status": got.status_code, "body": base64.b64encode(got.content).decode()}

    def openai(self, model: str, question: str, max_tokens: int = 16) -> dict:
        """OpenAI's own SDK over the transports: chat, stream, asynchronous, models, a refusal."""
        asked = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0}
        asked["max_tokens"] = max_tokens
        options = {"base_url": self.url + "/v1", "api_key": self.key, "max_retries": 0}
        client = openai.OpenAI(**options, http_client=self.http)
        plain = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        answer = client.responses.create(model=model, input=question, temperature=0, max_output_tokens=max_tokens)
        with client.responses.stream(
            model=model, input=question, temperature=0, max_output_tokens=max_tokens
        ) as stream:
            final = stream.get_final_response().output_text
        try:
            client.chat.completions.create(**{**asked, "model": "none"})
            refused = None
        except openai.NotFoundError as fault:
            refused = fault.code
        return {
            "plain": plain.choices[0].message.content,
            "receipt": bool(plain.model_extra["confide"]["receipt"]),
            "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
            "usage": chunks[-1].usage.completion_tokens,
            "responses": answer.output_text == final,
            "models": [each.id for each in client.models.list()],
            "refused": refused,
            "async": asyncio.run(self.asynchronous(options, asked)),
        }

    async def asynchronous(self, options: dict, asked: dict) -> str:
        async with httpx.AsyncClient(transport=ehbp.AsyncEHBPTransport(self.identity), timeout=60) as http:
            stream = await openai.AsyncOpenAI(**options, http_client=http).chat.completions.create(
                **asked, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def main() -> None:
    peer = Peer()
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(getattr(peer, asked.pop("op"))(**asked)), flush=True)


if __name__ == "__main__":
    main()
