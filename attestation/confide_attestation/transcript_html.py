"""Render a result as one HTML page that stands alone: no script, nothing fetched, print and screen alike.

Everything that comes from evidence or policy is escaped, and the page itself forbids all but its own style.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape

from confide_attestation.part import Claims
from confide_attestation.result import AttestationResult, Outcome
from confide_attestation.sections import Section, sections
from confide_attestation.transcript_text import (
    SIMULATED_BANNER,
    expiries,
    left,
    limits,
    plain,
    utc,
    verdict_line,
)

_STYLE = """\
:root{color-scheme:light dark;--back:#fff;--text:#1b1b1f;--line:#c4c4cc}
:root{--pass:#0b5a2b;--fail:#9b0a1d;--skip:#55555e}
@media (prefers-color-scheme:dark){
:root{--back:#141519;--text:#ececf1;--line:#4a4a55;--pass:#7fe3a1;--fail:#ff9c9c;--skip:#b9b9c4}}
@media print{
:root{--back:#fff;--text:#000;--line:#888;--pass:#0b5a2b;--fail:#9b0a1d;--skip:#444}tr{break-inside:avoid}}
body{background:var(--back);color:var(--text);font:16px/1.45 system-ui,sans-serif}
body{max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
h1,.verdict,th,td{overflow-wrap:anywhere}
.verdict{border:2px solid;border-radius:.4rem;padding:.6rem .9rem;font-weight:600}
.simulated{background:#7a0012;color:#fff;padding:.6rem .9rem;font-weight:700}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line)}
th:first-child{width:16rem}code{font-size:.9em}
.PASS,.accepted,.authentic{color:var(--pass)}.FAIL,.refused,.unreadable{color:var(--fail);font-weight:600}
.SKIP{color:var(--skip)}
"""


def render_page(result: AttestationResult, *, title: str = "", notes: Sequence[str] = ()) -> str:
    """Return the whole page; `title` names what was judged, `notes` add to what is not shown."""
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'"
    name = f"Attestation: {result.verdict}" + (f" — {title}" if title else "")
    banner = f'<p class="simulated" role="alert">{_text(SIMULATED_BANNER)}</p>\n' if result.simulated else ""
    failed = "".join(f"<li><code>{_text(each.id)}</code>: {_text(each.detail)}</li>\n" for each in result.failed)
    body = [
        f"<header>\n<h1>{_text(name)}</h1>\n{banner}",
        f'<p class="verdict {result.verdict}">{_text(verdict_line(result))}</p>\n',
        f"<ul>\n{failed}</ul>\n" if failed else "",
        _pairs(_facts(result)),
        "</header>\n<main>\n",
        _limits(limits(result, notes)),
        *map(_section, sections(result.checks)),
        *(_claims(group, claims) for group, claims in result.claims.items()),
        "</main>\n",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(name)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{''.join(body)}</body>\n</html>\n"
    )


def _facts(result: AttestationResult) -> list[tuple[str, str]]:
    digest = "none" if result.policy_digest is None else result.policy_digest.hex()
    facts = [
        ("Policy", result.policy_id or "none"),
        ("Policy digest (SHA-256)", digest),
        ("Judged as of", utc(result.judged_at_unix_s)),
    ]
    if result.keyset is not None:
        facts.append(("Keyset digest", result.keyset.keyset.digest.hex()))
        facts.append(("Result digest", result.keyset.result_digest.hex()))
    return facts + [
        (f"Ends: {name}", f"{utc(end)} ({left(end - result.judged_at_unix_s)})") for name, end in expiries(result)
    ]


def _limits(said: Sequence[str]) -> str:
    items = "".join(f"<li>{_text(each)}</li>\n" for each in said)
    return f"<section>\n<h2>What this does not show</h2>\n<ul>\n{items}</ul>\n</section>\n" if said else ""


def _section(section: Section) -> str:
    rows = "".join(
        f'<tr><th scope="row"><code>{_text(check.id)}</code></th><td class="{check.outcome}">{check.outcome}</td>'
        f"<td>{_text(check.detail)}</td></tr>\n"
        for check in section.checks
    )
    counts = ", ".join(
        f"{count} {outcome}"
        for outcome in Outcome
        if (count := sum(check.outcome is outcome for check in section.checks))
    )
    head = '<tr><th scope="col">Check</th><th scope="col">Outcome</th><th scope="col">Reason</th></tr>\n'
    return (
        f"<section>\n<h2>{_text(section.title)}: {counts}</h2>\n"
        f"<table>\n<thead>{head}</thead>\n<tbody>\n{rows}</tbody>\n</table>\n</section>\n"
    )


def _claims(group: str, claims: Claims) -> str:
    rows = _pairs((name, str(value)) for name, value in claims.items())
    return f"<section>\n<h2>Claims: {_text(group)}</h2>\n{rows}</section>\n"


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>\n' for name, value in pairs)
    return f"<table>\n<tbody>\n{rows}</tbody>\n</table>\n"


def _text(value: str) -> str:
    return escape(plain(value), quote=True)
