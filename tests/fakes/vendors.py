"""A local server that answers for simulated hardware as AMD, Intel, NVIDIA and Azure do, or misbehaves."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from confide_attestation.pem import pem_blocks
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.simulated.nvidia import SimulatedDevice
from confide_attestation.snp.abi import TCB_LAYOUT
from confide_endorsements.services import Services
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

DAY_S = 86_400


@dataclass(frozen=True)
class Reply:
    """One answer; `drip_s` sends its body one byte at a time, so far apart."""

    status: int = 200
    body: bytes = b""
    fields: Mapping[str, str] = field(default_factory=dict)
    drip_s: float = 0


Route = Reply | list[Reply] | Callable[[bytes], Reply]


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients of tests break off on purpose."""


class Vendors:
    """Routes by path and query. A list is answered in order, its last one for ever; a function sees the body."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.asked: list[str] = []
        self.seen_fields: list[dict[str, str]] = []
        self._server = QuietServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def services(self) -> Services:
        return Services(*[self.url] * 2, f"{self.url}/IntelSGXRootCA.der", *[self.url] * 4)

    @contextmanager
    def running(self) -> Iterator["Vendors"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def close(self) -> None:
        self._server.server_close()

    def answer(self, path: str, body: bytes) -> Reply:
        self.asked.append(path)
        route = self.routes.get(path, Reply(404, b"not found: CANARY"))
        if isinstance(route, list):
            return route.pop(0) if len(route) > 1 else route[0]
        return route if isinstance(route, Reply) else route(body)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        vendors = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                vendors.seen_fields.append({name.lower(): value for name, value in self.headers.items()})
                reply = vendors.answer(self.path, body)
                self.send_response(reply.status)
                for name, value in {"content-length": str(len(reply.body)), **reply.fields}.items():
                    self.send_header(name, value)
                self.end_headers()
                parts = [reply.body] if not reply.drip_s else [bytes([byte]) for byte in reply.body]
                try:
                    for part in parts:
                        self.wfile.write(part)
                        time.sleep(reply.drip_s)
                except OSError:
                    self.close_connection = True

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def serve_amd(self, chip: SimulatedAmd, now_unix_s: int) -> str:
        """Serve a chip's documents; return the path of its VCEK."""
        spl = "&".join(f"{part}SPL={chip.tcb[part]}" for part in TCB_LAYOUT[chip.product])
        vcek = f"/vcek/v1/{chip.product}/{chip.chip_id.hex()}?{spl}"
        crl = chip.crl(issued_unix_s=now_unix_s - 60, next_update_unix_s=now_unix_s + 20 * DAY_S)
        self.routes |= {
            vcek: Reply(body=chip.vek),
            f"/{chip.signer.lower()}/v1/{chip.product}/cert_chain": Reply(body=pem(chip.ask, chip.ark)),
            f"/{chip.signer.lower()}/v1/{chip.product}/crl": Reply(body=crl),
        }
        return vcek

    def serve_azure(self, chip: SimulatedAmd) -> None:
        """Serve the same as Azure's metadata service does."""
        tree = {
            "vcekCert": pem(chip.vek).decode(),
            "tcbm": "00",
            "certificateChain": pem(chip.ask, chip.ark).decode(),
            "cacheControl": "86400",
        }
        self.routes["/metadata/THIM/amd/certification"] = Reply(body=json.dumps(tree).encode())

    def serve_intel(self, intel: SimulatedIntel, ca: str = "platform") -> None:
        parts = json.loads(intel.collateral())
        chains = {name: quote(text) for name, text in parts.items() if name.endswith("chain")}
        tcb = f'{{"tcbInfo":{parts["tcb_info"]},"signature":"{parts["tcb_info_signature"]}"}}'
        qe = f'{{"enclaveIdentity":{parts["qe_identity"]},"signature":"{parts["qe_identity_signature"]}"}}'
        fmspc = intel.fmspc.hex().upper()
        self.routes |= {
            f"/tdx/certification/v4/tcb?fmspc={fmspc}": Reply(
                body=tcb.encode(), fields={"TCB-Info-Issuer-Chain": chains["tcb_info_issuer_chain"]}
            ),
            "/tdx/certification/v4/qe/identity": Reply(
                body=qe.encode(), fields={"SGX-Enclave-Identity-Issuer-Chain": chains["qe_identity_issuer_chain"]}
            ),
            f"/sgx/certification/v4/pckcrl?ca={ca}&encoding=der": Reply(
                body=bytes.fromhex(parts["pck_crl"]),
                fields={"SGX-PCK-CRL-Issuer-Chain": chains["pck_crl_issuer_chain"]},
            ),
            "/IntelSGXRootCA.der": Reply(body=bytes.fromhex(parts["root_ca_crl"])),
        }

    def serve_nvidia(self, device: SimulatedDevice, rim_ids: list[str]) -> None:
        """Serve a device's manifests by their ids, and answer about every certificate above it and them."""
        for rim_id, rim in zip(rim_ids, device.rims, strict=True):
            tree = {"id": rim_id, "rim": base64.b64encode(rim).decode(), "sha256": hashlib.sha256(rim).hexdigest()}
            self.routes[f"/v1/rim/{rim_id}"] = Reply(body=json.dumps(tree).encode())
        self.routes["/"] = lambda body: Reply(body=self.ocsp_answer(device, body))

    def ocsp_answer(self, device: SimulatedDevice, request: bytes, **options: Any) -> bytes:
        asked = ocsp.load_der_ocsp_request(request)
        nonce = asked.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
        keys = {"ICA 1": "ica", "GH100 Identity": "identity", "Identity CA": "root", "Value CA": "rim_ca"}
        keys |= {"Value L3": "rim_l3", "Root CA": "rim_root"}
        paths = (device.certificates[1:], device.vendor.rim_chain)
        for subject, issuer in (pair for path in paths for pair in pairwise(path)):
            if subject.serial_number == asked.serial_number:
                name = issuer.subject.rfc4514_string()
                key = next(key for end, key in keys.items() if f"{end}," in f"{name},")
                by = device.vendor.keys[key]
                return device.vendor.answer(subject, issuer, by, **{"nonce": nonce, **options}).der
        return ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED).public_bytes(
            Encoding.DER
        )


def pem(*ders: bytes) -> bytes:
    """Return certificates as the PEM text in which AMD and Azure send them."""
    text = b"".join(
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n" for der in ders
    )
    assert pem_blocks(text, "CERTIFICATE", (len(ders),)) == ders
    return text
