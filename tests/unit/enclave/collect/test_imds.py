"""Azure's metadata service, simulated on loopback."""

import base64

import pytest
from confide_enclave.collect.imds import quote_tdreport
from confide_enclave.errors import DeviceUnavailable

from tests.unit.enclave.collect.agents import always, service

REPORT = bytes(range(256)) * 4


@pytest.mark.parametrize("padding", ["", "="])
def test_a_report_becomes_a_quote(padding):
    """Base64url both ways; the answer's padding does not matter."""
    asked = []

    def answer(path, body):
        asked.append((path, body))
        text = base64.urlsafe_b64encode(b"\xfb\xff quote!").rstrip(b"=")
        return 200, b'{"quote": "%b"}' % (text + b"=" * (len(padding) * (-len(text) % 4)))

    with service(answer) as url:
        assert quote_tdreport(REPORT, base_url=url, timeout_s=5) == b"\xfb\xff quote!"
    assert asked == [("/acc/tdquote", {"report": base64.urlsafe_b64encode(REPORT).decode().rstrip("=")})]


@pytest.mark.parametrize("answer", [{}, {"quote": 1}, {"quote": ""}, {"quote": "%%"}, {"quote": "a"}])
def test_an_answer_without_a_quote_is_refused(answer):
    """No bytes are made up."""
    with service(always(200, answer)) as url, pytest.raises(DeviceUnavailable, match="no quote in base64url"):
        quote_tdreport(REPORT, base_url=url, timeout_s=5)
