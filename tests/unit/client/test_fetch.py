"""What the first contact with a gateway says where it fails."""

import datetime
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from confide.errors import NotConfide
from confide.fetch import Limits, Link, fetch_evidence
from confide_protocol.errors import RelayUnreachable
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NONCE = bytes(32)
KEY = {"authorization": "Bearer k"}


def said(url: str, authorization: dict[str, str] | None = None, link: Link | None = None) -> str:
    with pytest.raises((RelayUnreachable, NotConfide)) as caught:
        fetch_evidence(url, NONCE, authorization or {}, Limits(), link or Link())
    return str(caught.value)


@pytest.fixture
def server() -> Iterator[http.server.HTTPServer]:
    """Serve nothing: 404 for every path."""

    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def write_self_signed(path: Path) -> Path:
    """Write a certificate of localhost that nobody issued, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(pem) + secret)
    return path


def test_what_a_stranger_got_is_told(server: http.server.HTTPServer) -> None:
    """A server that is none of ours saw a nonce, and the key where there was one."""
    url = f"http://127.0.0.1:{server.server_port}"
    assert said(url).endswith("no prompt was sent to it, but a nonce was")
    assert "but a nonce and the API key were: if that server is not yours, have the key revoked" in said(url, KEY)


def test_why_nobody_answered(server: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port, a server without TLS and a name that leads nowhere are told apart."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert f"http://127.0.0.1:{port} gave no evidence: nobody listens there" in said(f"http://127.0.0.1:{port}")
    assert "speaks no TLS" in said(f"https://127.0.0.1:{server.server_port}")

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "its name cannot be resolved" in said("http://gateway.test")


def test_a_certificate_that_nobody_trusts(
    server: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named as what is wrong, and both of the ways to trust another CA work."""
    file = write_self_signed(tmp_path / "own.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"https://localhost:{server.server_port}"
    refused = said(url)
    assert "its TLS certificate is not trusted here" in refused
    assert "SSL_CERT_FILE or Link(tls=" in refused
    trusting = ssl.create_default_context(cafile=str(file))
    assert "serves no evidence" in said(url, link=Link(tls=trusting))
    assert "not trusted here, or is another name's" in said(url.replace("localhost", "127.0.0.1"))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert "serves no evidence" in said(url)
