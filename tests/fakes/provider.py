"""Reports as other providers publish them, from simulated vendors; every part can be replaced by a lie."""

import base64
import gzip
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from confide_attestation.eventlog.dstack import RUNTIME_EVENT, parse_list
from confide_attestation.eventlog.replay import replay
from confide_attestation.foreign.dstack_report import DstackReport, parse_dstack
from confide_attestation.foreign.judge_dstack import verify_dstack_report
from confide_attestation.foreign.judge_tinfoil import verify_tinfoil
from confide_attestation.foreign.keccak import keccak256
from confide_attestation.foreign.tinfoil import REPORT_DATA_V1, V3, parse_tinfoil
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.result import AttestationResult
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor

NOW = 1_800_000_000
NONCE = bytes(range(32))
KEY = b"\x07" * 64
TLS = hashlib.sha256(b"the TLS key").digest()
HPKE = hashlib.sha256(b"the HPKE key").digest()
COMPOSE = json.dumps({"docker_compose_file": "services: {vllm: {image: vllm/vllm@sha256:" + "ab" * 32 + "}}"})
TREE = dict[str, Any]
TINFOIL = "https://tinfoil.sh"


def runtime_event(name: str, payload: bytes) -> TREE:
    text = RUNTIME_EVENT.to_bytes(4, "little") + b":" + name.encode() + b":" + payload
    return {
        "imr": 3,
        "event_type": RUNTIME_EVENT,
        "digest": hashlib.sha384(text).hexdigest(),
        "event": name,
        "event_payload": payload.hex(),
    }


@dataclass(frozen=True)
class Provider:
    """One machine of a provider: a TD and a GPU under simulated vendors."""

    intel: SimulatedIntel = field(default_factory=lambda: SimulatedIntel.make(NOW))
    vendor: SimulatedVendor = field(default_factory=lambda: SimulatedVendor(now_unix_s=NOW))

    @cached_property
    def gpu(self) -> SimulatedDevice:
        return SimulatedDevice(self.vendor)

    @property
    def nvidia(self) -> NvidiaEndorsements:
        return NvidiaEndorsements(self.gpu.rims)

    def gpu_item(self, nonce: bytes = NONCE) -> TREE:
        device = self.gpu.evidence(nonce)
        return {
            "arch": "HOPPER",
            "nonce": nonce.hex(),
            "evidence": base64.b64encode(device.report).decode(),
            "certificate": base64.b64encode(device.chain).decode(),
        }

    def quote(self, report_data: bytes, events: list[TREE], mr_config_id: bytes = b"") -> bytes:
        registers = replay(parse_list(json.dumps(events).encode()).events)
        fields: TREE = {f"rtmr{at}": value for at, value in enumerate(registers)}
        return self.intel.sign_quote(report_data, mr_config_id=mr_config_id.ljust(48, b"\0"), **fields)

    def dstack(
        self,
        *,
        address: bytes = keccak256(KEY)[-20:],
        nonce: bytes = NONCE,
        compose: str = COMPOSE,
        measured: str = COMPOSE,
        report_data: bytes | None = None,
        mr_config_id: bytes | None = None,
        gpu_nonce: bytes = NONCE,
        **fields: Any,
    ) -> TREE:
        """Make a report as vllm-proxy does; `fields` replaces its fields, None leaves one out."""
        digest = hashlib.sha256(measured.encode()).digest()
        events = [runtime_event("app-id", b"app"), runtime_event("compose-hash", digest)]
        data = address.ljust(32, b"\0") + nonce if report_data is None else report_data
        quote = self.quote(data, events, b"\x01" + digest if mr_config_id is None else mr_config_id)
        stated = hashlib.sha256(compose.encode()).hexdigest()
        payload = {"nonce": gpu_nonce.hex(), "evidence_list": [self.gpu_item(gpu_nonce)], "arch": "HOPPER"}
        tree = {
            "signing_address": "0x" + address.hex(),
            "signing_algo": "ecdsa",
            "signing_public_key": KEY.hex(),
            "request_nonce": nonce.hex(),
            "intel_quote": quote.hex(),
            "quote": quote.hex(),
            "nvidia_payload": json.dumps(payload),
            "event_log": json.dumps(events),
            "info": {"compose_hash": stated, "tcb_info": {"app_compose": compose, "compose_hash": stated}},
            "vm_config": "{}",
            **fields,
        }
        return {name: value for name, value in tree.items() if value is not None}

    def judge_dstack(self, tree: TREE, **options: Any) -> AttestationResult:
        (report,) = parse_dstack(json.dumps(tree).encode()).values()
        return self.judge_report(report, **options)

    def judge_report(self, report: DstackReport, **options: Any) -> AttestationResult:
        given = {
            "now_unix_s": NOW,
            "nonce": NONCE,
            "root_der": self.intel.root,
            "roots": self.vendor.roots,
            **options,
        }
        nvidia = given.pop("nvidia", self.nvidia)
        return verify_dstack_report(report, given.pop("collateral", self.intel.collateral()), nvidia, **given)

    def tinfoil(
        self,
        *,
        nonce: bytes = NONCE,
        keys: list[TREE] | None = None,
        devices: list[TREE] | None = None,
        report_data: bytes | None = None,
        hashes: tuple[bytes, bytes] | None = None,
        collateral: list[TREE] | None = None,
        **fields: Any,
    ) -> TREE:
        """Make a document of version 3 on TDX; `hashes`, `report_data` replace what follows from its sections."""
        crypto = section("crypto-material", tinfoil_keys() if keys is None else keys)
        device = section("device-evidence", [self.tinfoil_gpu()] if devices is None else devices)
        stated = hashes or (hashlib.sha256(crypto).digest(), hashlib.sha256(device).digest())
        bound = hashlib.sha256(REPORT_DATA_V1.encode() + nonce + b"".join(stated)).digest().ljust(64, b"\0")
        data = bound if report_data is None else report_data
        return {
            "format": V3,
            "challenge": {
                "nonce": nonce.hex(),
                "report_data": data.hex(),
                "report_data_algorithm": REPORT_DATA_V1,
            },
            "cpu_evidence": {
                "format": f"{TINFOIL}/format/tdx-quote/v1",
                "report_base64": base64.b64encode(self.intel.sign_quote(data)).decode(),
                "endorsed": dict(
                    zip(("crypto_material_hash", "device_evidence_hash"), (s.hex() for s in stated), strict=True)
                ),
            },
            "crypto_material": base64.b64encode(crypto).decode(),
            "device_evidence": base64.b64encode(device).decode(),
            "collateral": [self.intel_pcs()] if collateral is None else collateral,
            **fields,
        }

    def tinfoil_gpu(self, nonce: bytes = NONCE) -> TREE:
        form = f"{TINFOIL}/format/nvidia-gpu-evidence/v1"
        return {"id": "gpu0", "kind": "gpu", "vendor": "nvidia", "format": form, "evidence": self.gpu_item(nonce)}

    def intel_pcs(self) -> TREE:
        """Record Intel's answers as Tinfoil's documents carry them."""
        parts = json.loads(self.intel.collateral())

        def answer(url: str, body: bytes, chain: str = "", part: str = "") -> TREE:
            quoted = parts[part].replace("\n", "%0A").replace(" ", "%20") if part else ""
            headers = {chain: [quoted]} if chain else {}
            return {"url": url, "headers": headers, "body_base64": base64.b64encode(body).decode()}

        base = "https://api.trustedservices.intel.com"
        tcb = f'{{"tcbInfo":{parts["tcb_info"]},"signature":"{parts["tcb_info_signature"]}"}}'
        qe = f'{{"enclaveIdentity":{parts["qe_identity"]},"signature":"{parts["qe_identity_signature"]}"}}'
        answers = [
            answer(f"{base}/tdx/certification/v4/tcb?fmspc=90c06f000000", tcb.encode(), "Tcb-Info-Issuer-Chain",
                   "tcb_info_issuer_chain"),
            answer(f"{base}/tdx/certification/v4/qe/identity", qe.encode(), "Sgx-Enclave-Identity-Issuer-Chain",
                   "qe_identity_issuer_chain"),
            answer(f"{base}/sgx/certification/v4/pckcrl?ca=platform&encoding=der", bytes.fromhex(parts["pck_crl"]),
                   "Sgx-Pck-Crl-Issuer-Chain", "pck_crl_issuer_chain"),
            answer("https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
                   bytes.fromhex(parts["root_ca_crl"])),
        ]  # fmt: skip
        form = f"{TINFOIL}/collateral/intel-pcs/v1"
        return {
            "id": "pcs",
            "role": "endorsement",
            "format": form,
            "subjects": ["cpu"],
            "data": {"responses": answers},
        }

    def tinfoil_v2(self, report_data: bytes = TLS + HPKE) -> TREE:
        body = base64.b64encode(gzip.compress(self.intel.sign_quote(report_data))).decode()
        return {"format": f"{TINFOIL}/predicate/tdx-guest/v2", "body": body}

    def judge_tinfoil(self, tree: TREE, **options: Any) -> AttestationResult:
        given = {
            "now_unix_s": NOW,
            "nonce": NONCE,
            "root_der": self.intel.root,
            "roots": self.vendor.roots,
            **options,
        }
        return verify_tinfoil(parse_tinfoil(json.dumps(tree).encode()), given.pop("nvidia", self.nvidia), **given)


def section(name: str, items: list[TREE]) -> bytes:
    return json.dumps({"format": f"{TINFOIL}/{name}/v1", "items": items}).encode()


def tinfoil_keys() -> list[TREE]:
    return [
        {"id": "tls", "format": f"{TINFOIL}/key/spki-fp-sha256/v1", "data": TLS.hex()},
        {"id": "hpke", "format": f"{TINFOIL}/key/x25519-hpke/v1", "data": HPKE.hex()},
    ]


def failed(result: AttestationResult) -> set[str]:
    return {check.id for check in result.failed}
