"""The proxy's own pages: who is trusted and why, under which policy, and what was answered last. No word of it."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from confide_attestation.policy_explain import explain_policy
from confide_attestation.transcript_text import SIMULATED_BANNER, plain, utc

if TYPE_CHECKING:
    from confide.proxy.app import ProxyApp

HTML = "text/html; charset=utf-8"
JSON = "application/json"
SERVICE = "confide-proxy"

_STYLE = """\
:root{color-scheme:light dark;--back:#fff;--text:#1b1b1f;--line:#c4c4cc;--box:#f3f3f7;--pass:#0b5a2b;--fail:#9b0a1d}
@media (prefers-color-scheme:dark){
:root{--back:#141519;--text:#ececf1;--line:#4a4a55;--box:#1e2027;--pass:#7fe3a1;--fail:#ff9c9c}}
body{background:var(--back);color:var(--text);font:16px/1.45 system-ui,sans-serif}
body{max-width:64rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.verdict{border:2px solid;border-radius:.4rem;padding:.6rem .9rem;font-weight:600}
.good{color:var(--pass)}.bad{color:var(--fail)}
.simulated{background:#7a0012;color:#fff;padding:.6rem .9rem;font-weight:700}
ol.chain{list-style:none;padding:0}
ol.chain li{background:var(--box);border:1px solid var(--line);border-radius:.4rem;padding:.5rem .9rem}
ol.chain li{margin-bottom:1.3rem;position:relative}
ol.chain li+li::before{content:"\\2193";position:absolute;top:-1.45rem;left:1.2rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line)}
td,th,li{overflow-wrap:anywhere}
"""

_UNKNOWN = "<p>Shown to callers that give the proxy's token as API key, or ask on its socket.</p>"


def status(app: "ProxyApp", known: bool) -> dict[str, Any]:
    """Return the state of the proxy as JSON's types; what was answered and refused only to a caller it knows."""
    attestation, policy = app.relay.attestation, app.relay.session.policy
    fault = app.last_fault
    ready = app.relay.session.attested(int(app.relay.now_s())) is not None
    return {
        "service": SERVICE,
        "gateway": app.relay.url,
        "verified": ready,
        "stopping": app.stopping,
        "in_flight": app.in_flight,
        "answered": app.answered,
        "refused": app.refused,
        "last_fault": {"code": fault[0], "text": fault[1]} if fault and known else None,
        "policy": {
            "id": policy.id,
            "serial": policy.serial,
            "kind": policy.kind,
            "shape": policy.shape,
            "sha256": policy.digest.hex(),
            "not_after": policy.not_after_unix_s,
        },
        "attestation": None if attestation is None else attestation.as_dict(),
        "receipts": list(app.receipts) if known else [],
    }


def _status(app: "ProxyApp", known: bool) -> tuple[str, bytes]:
    return JSON, json.dumps(status(app, known), ensure_ascii=False).encode()


def _health(app: "ProxyApp", known: bool) -> tuple[str, bytes]:
    return JSON, json.dumps({"service": SERVICE, "status": "stopping" if app.stopping else "ok"}).encode()


def _attestation(app: "ProxyApp", known: bool) -> tuple[str, bytes]:
    attestation = app.relay.attestation
    if attestation is None:
        return HTML, _page("Nothing is verified yet", "<p>The first request verifies the enclave.</p>")
    return HTML, attestation.as_html(app.relay.url).encode()


def _home(app: "ProxyApp", known: bool) -> tuple[str, bytes]:
    said = status(app, known)
    attestation = app.relay.attestation
    parts = []
    if said["policy"]["kind"] == "simulated":
        parts.append(f'<p class="simulated" role="alert">{_text(SIMULATED_BANNER)}</p>')
    if said["verified"] and attestation is not None:
        line = f"Verified until {utc(attestation.valid_until_unix_s or 0)}: {attestation.summary}"
        parts.append(f'<p class="verdict good">{_text(line)}</p>')
    else:
        parts.append('<p class="verdict bad">Nothing is verified now; nothing is sent before it is.</p>')
    if known and app.last_fault is not None:
        code, words = map(_text, app.last_fault)
        parts.append(f'<p class="bad">Last refusal: <code>{code}</code>, {words}</p>')
    parts.append("<h2>The chain of trust</h2>" + _chain(app))
    parts.append(
        '<p><a href="/attestation">Every check, with its reason</a>. <a href="/status">The same as JSON</a>.</p>'
    )
    if attestation is not None:
        parts.append("<h2>What this does not show</h2>" + _list(attestation.not_shown))
    parts.append("<h2>The policy</h2>" + _policy(app))
    parts.append("<h2>The last receipts</h2>" + (_receipts(app) if known else _UNKNOWN))
    return HTML, _page("Confide proxy", "\n".join(parts))


def _chain(app: "ProxyApp") -> str:
    relay, attestation = app.relay, app.relay.attestation
    steps = [
        "Your program, in clear, on this machine alone",
        "This proxy: seals every request, verifies every answer",
    ]
    steps.append(f"The gateway {relay.url}: passes sealed bytes on; it holds no key, and is not trusted")
    if attestation is not None and attestation.result.keyset is not None:
        keyset = attestation.result.keyset
        model = f"{attestation.model} ({keyset.manifest.release}), manifest {keyset.manifest.digest.hex()[:16]}…"
        steps.append(f"Keys {keyset.keyset.digest.hex()[:16]}…, made inside the enclave, that hardware signed for")
        steps.append(f"The enclave on {attestation.platform}: {model}")
    steps.append("Trusted at the end: the silicon vendors' roots, the policy below, this program")
    return f'<ol class="chain">{"".join(f"<li>{_text(step)}</li>" for step in steps)}</ol>'


def _policy(app: "ProxyApp") -> str:
    policy = app.relay.session.policy
    head = (
        f"{policy.id}, serial {policy.serial}, until {utc(policy.not_after_unix_s)}, SHA-256 {policy.digest.hex()}"
    )
    demands = []
    for demand in explain_policy(policy):
        demands.append(f"not checked, {demand.place}: {demand.words}" if demand.waived else demand.words)
    return f"<p>{_text(head)}</p>{_list(demands)}"


def _receipts(app: "ProxyApp") -> str:
    if not app.receipts:
        return "<p>None yet.</p>"
    head = "".join(
        f"<th scope=col>{name}</th>" for name in ("Issued", "Model", "Outcome", "Tokens", "Request, sealed")
    )
    rows = []
    for claims in app.receipts:
        tokens = f"{claims['prompt_tokens']} in, {claims['completion_tokens']} out"
        outcome, digest = f"{claims['outcome']}, {claims['status']}", claims["sealed_request_sha256"][:16] + "…"
        cells = (claims["issued_text"], claims["model"], outcome, tokens, digest)
        rows.append("<tr>" + "".join(f"<td>{_text(str(cell))}</td>" for cell in cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _page(title: str, body: str) -> bytes:
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    rules = f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{rules}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_text(title)}</h1>\n"
        f"{body}\n</body>\n</html>\n"
    ).encode()


def _text(value: str) -> str:
    return escape(plain(value), quote=True)


PAGES: dict[str, Callable[["ProxyApp", bool], tuple[str, bytes]]] = {
    "/": _home,
    "/attestation": _attestation,
    "/status": _status,
    "/healthz": _health,
}
