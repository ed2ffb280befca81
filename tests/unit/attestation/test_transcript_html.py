"""The page: everything in it, nothing that evidence or policy brings can act, and both themes can be read."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from confide_attestation.result import Check, Outcome, Verdict
from confide_attestation.transcript_html import render_page
from confide_attestation.transcript_text import SIMULATED_BANNER, expiries, limits, verdict_line

from tests.fakes.scene import Scene

HOSTILE = (
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' style='position:fixed",
    "</style><style>*{display:none}",
    "<!-- ",
    "&lt;b&gt; &#x3c;",
    "javascript:alert(1)",
    "]]><svg/onload=alert(1)>",
    "\u202egnp.exe\x00\x1b[2J\r\n",
)


class Page(HTMLParser):
    """The elements of a page, its attributes and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_has_all_that_the_result_has() -> None:
    """Banner, verdict, policy, every check with its reason, claims, limits, and when things end."""
    result = Scene().appraise()
    page = Page(render_page(result, title="report.bin"))
    assert result.policy_id is not None
    assert result.policy_digest is not None
    assert result.keyset is not None
    for part in (
        SIMULATED_BANNER,
        verdict_line(result),
        result.policy_id,
        result.policy_digest.hex(),
        "report.bin",
    ):
        assert part in page.text
    for check in result.checks:
        assert check.id in page.text
        assert check.detail in page.text
    for claims in result.claims.values():
        assert all(name in page.text and str(value) in page.text for name, value in claims.items())
    assert all(limit in page.text for limit in limits(result))
    assert ("this result", result.keyset.valid_until_unix_s) in expiries(result)
    assert "left)" in page.text


def test_page_asks_for_nothing_and_runs_nothing() -> None:
    """No element that loads or runs, no address, and a policy that forbids all but the page's own style."""
    text = render_page(Scene().appraise())
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base", "form", "a", "svg"} & set(page.tags)
    assert not {"src", "href", "style", "srcset"} & page.attributes
    assert not re.search(r"https?:|url\(|@import", text)
    assert "default-src 'none'; style-src 'sha256-" in text
    assert 'lang="en"' in text
    assert "<main>" in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_markup_in_evidence_stays_text(hostile: str) -> None:
    """In every place that a peer or a policy's author can write, the page keeps the same elements."""
    result = Scene().appraise()
    checks = tuple(Check(check.id, check.outcome, hostile) for check in result.checks)
    claims = {hostile: {hostile: hostile}}
    marked = replace(
        result, checks=(*checks, Check(hostile, Outcome.FAIL, hostile)), claims=claims, policy_id=hostile
    )
    plain = replace(marked, checks=(*result.checks, Check("x", Outcome.FAIL, "x")), claims={"x": {"x": "x"}})
    page = Page(render_page(marked, title=hostile, notes=(hostile,)))
    same = Page(render_page(replace(plain, policy_id="x"), title="x", notes=("x",)))
    assert (page.tags, page.attributes) == (same.tags, same.attributes)
    assert page.text.replace("\n", "").isprintable()


def test_a_refusal_comes_first_and_claims_no_limits() -> None:
    """The failed checks stand at the top with their reasons."""
    result = Scene(report={"vmpl": 1}).appraise()
    assert result.verdict is Verdict.REFUSED
    text = Page(render_page(result)).text
    assert text.index("vmpl") < text.index("The policy")
    assert "What this does not show" not in text


def test_a_claim_of_any_number_is_no_date_that_cannot_be() -> None:
    """What ends beyond the calendar is shown as its number alone."""
    result = replace(
        Scene().appraise(), claims={"cpu0": {"x_not_after": 1 << 80, "y_expires": -1, "z_expires": True}}
    )
    assert [name for name, _ in expiries(result)] == ["this result"]
    render_page(result)


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(each * 2 for each in digits) if len(digits) == 3 else digits
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_can_be_read_in_every_theme() -> None:
    """WCAG AA: a contrast of 4.5 at least, on screen by day and night and in print."""
    themes: list[dict[str, str]] = []
    for line in render_page(Scene().appraise()).splitlines():
        if "--back:" in line:
            themes.append({})
        if themes:
            themes[-1] |= dict(re.findall(r"--(\w+):(#[0-9a-f]+)", line))
    assert len(themes) == 3
    for theme in themes:
        back = luminance(theme["back"])
        for name in ("text", "pass", "fail", "skip"):
            high, low = sorted((luminance(theme[name]), back), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (theme, name)
