"""dstack providers' reports: what holds, every lie by its name, and what stays unsaid."""

import hashlib
import json
from typing import Any

import pytest
from confide_attestation.foreign.dstack_report import parse_dstack
from confide_attestation.foreign.ids import DSTACK_REPORT_CHECKS
from confide_attestation.foreign.judge_dstack import verify_dstack_report
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.result import AttestationResult, Outcome, Verdict

from tests.fakes.provider import COMPOSE, KEY, NONCE, TLS, Provider, failed
from tests.shared import shared_path

ADDRESS = bytes.fromhex("93f4152848cc0c3f2cb584e9399ba397fb5f1314")
OTHER = b"\x55" * 32


@pytest.fixture(scope="module")
def provider() -> Provider:
    return Provider()


def outcome(result: AttestationResult, check_id: str) -> Outcome:
    return next(check.outcome for check in result.checks if check.id == check_id)


def test_a_whole_report_is_authentic_and_no_more(provider: Provider) -> None:
    """Every check of quote, log, GPU and report stands in it; there is no keyset; the app's images are shown."""
    result = provider.judge_dstack(provider.dstack())
    assert (result.verdict, result.keyset, result.simulated) == (Verdict.AUTHENTIC, None, True)
    ids = [check.id for check in result.checks]
    assert len(ids) == len(set(ids))
    assert ids[-len(DSTACK_REPORT_CHECKS) :] == [str(check_id) for check_id in DSTACK_REPORT_CHECKS]
    assert {"quote_signature", "rtmr3_replay_mismatch", "gpu_report_sig"} <= set(ids)
    said = result.claims["provider"]
    assert said["signing_address"] == ADDRESS.hex()
    assert said["images"] == "vllm/vllm@sha256:" + "ab" * 32
    assert {"cpu0", "gpu0", "dstack"} <= set(result.claims)


@pytest.mark.parametrize(
    ("fields", "check_id"),
    [
        ({"signing_address": "0x" + "11" * 20}, "provider_signing_address"),
        ({"signing_public_key": "08" * 64}, "provider_signing_key"),
        ({"signing_public_key": "05" + KEY.hex()}, "provider_signing_key"),
        ({"request_nonce": OTHER.hex()}, "provider_nonce_bound"),
        ({"request_nonce": OTHER.hex()}, "provider_request_nonce"),
        ({"request_nonce": None}, "provider_request_nonce"),
        ({"request_nonce": None}, "provider_nonce_bound"),
        ({"quote": "00"}, "provider_quote_differs"),
        ({"nvidia_payload": None}, "provider_gpu_evidence"),
        ({"nvidia_payload": "[]"}, "provider_gpu_evidence"),
        ({"nvidia_payload": "{"}, "provider_gpu_evidence"),
        ({"event_log": None}, "log_format"),
        ({"info": {}}, "provider_app_compose"),
        ({"tls_cert_fingerprint": TLS.hex()}, "provider_tls_key"),
        ({"compose": COMPOSE + " "}, "provider_app_compose"),
        ({"measured": COMPOSE + " "}, "provider_app_compose"),
        ({"mr_config_id": b"\x01" * 33}, "provider_mr_config"),
        ({"gpu_nonce": OTHER}, "gpu_nonce"),
        ({"gpu_nonce": OTHER}, "provider_gpu_nonce"),
        ({"report_data": bytes(64)}, "provider_signing_address"),
        ({"report_data": ADDRESS.rjust(32, b"\0") + NONCE}, "provider_signing_address"),
        ({"report_data": ADDRESS.ljust(32, b"\0") + OTHER}, "provider_nonce_bound"),
    ],
)
def test_every_lie_is_refused_by_its_name(provider: Provider, fields: dict[str, Any], check_id: str) -> None:
    """Each part that is foreign, other than stated, or not there."""
    result = provider.judge_dstack(provider.dstack(**fields))
    assert result.verdict in (Verdict.REFUSED, Verdict.UNREADABLE)
    assert check_id in failed(result)


def test_a_stated_hash_that_is_not_the_apps_is_refused(provider: Provider) -> None:
    """Also where the measured one fits."""
    tree = provider.dstack()
    tree["info"]["compose_hash"] = "00" * 32
    assert "provider_app_compose" in failed(provider.judge_dstack(tree))


def test_another_nonce_than_ours_is_refused(provider: Provider) -> None:
    """A whole report for somebody else's nonce is old, or another's; GPUs are judged by ours."""
    assert {"provider_request_nonce", "gpu_nonce"} <= failed(provider.judge_dstack(provider.dstack(), nonce=OTHER))


def test_without_a_nonce_freshness_is_not_judged(provider: Provider) -> None:
    """SKIP, and authentic all the same: the nonce in it still binds the GPU to the CPU's report."""
    result = provider.judge_dstack(provider.dstack(), nonce=None)
    assert (result.verdict, outcome(result, "provider_request_nonce")) == (Verdict.AUTHENTIC, Outcome.SKIP)
    spliced = provider.dstack(gpu_nonce=OTHER)
    assert "gpu_nonce" in failed(provider.judge_dstack(spliced, nonce=None))


def test_gpus_are_left_out_only_when_the_caller_says_so(provider: Provider) -> None:
    """A gateway has none; what it shows of any is then not judged."""
    tree = provider.dstack(nvidia_payload=None)
    result = provider.judge_dstack(tree, judge_gpus=False)
    assert (result.verdict, outcome(result, "provider_gpu_evidence")) == (Verdict.AUTHENTIC, Outcome.SKIP)
    assert provider.judge_dstack(tree).verdict is Verdict.REFUSED


def test_a_missing_manifest_refuses(provider: Provider) -> None:
    """Golden values are demanded, and the missing manifest is named."""
    result = provider.judge_dstack(provider.dstack(), nvidia=NvidiaEndorsements())
    assert {"driver_rim_missing", "firmware_rim_missing"} <= failed(result)


def test_the_tls_key_is_bound_with_the_address(provider: Provider) -> None:
    """As NEAR does: SHA-256 of both; compared with what was seen only if that is given."""
    data = hashlib.sha256(ADDRESS + TLS).digest() + NONCE
    tree = provider.dstack(report_data=data, tls_cert_fingerprint=TLS.hex())
    for seen, verdict, found in (
        (None, Verdict.AUTHENTIC, Outcome.SKIP),
        (TLS, Verdict.AUTHENTIC, Outcome.PASS),
        (OTHER, Verdict.REFUSED, Outcome.FAIL),
    ):
        result = provider.judge_dstack(tree, tls_fingerprint=seen)
        assert (result.verdict, outcome(result, "provider_tls_key")) == (verdict, found)
    assert "provider_tls_key" in failed(provider.judge_dstack(provider.dstack(), tls_fingerprint=TLS))


def test_ed25519_addresses_are_the_keys_themselves(provider: Provider) -> None:
    """32 bytes that fill the half of the report data."""
    key = b"\x44" * 32
    fields: dict[str, Any] = {"signing_algo": "ed25519", "signing_public_key": key.hex()}
    assert provider.judge_dstack(provider.dstack(address=key, **fields)).verdict is Verdict.AUTHENTIC
    fields["signing_public_key"] = OTHER.hex()
    assert failed(provider.judge_dstack(provider.dstack(address=key, **fields))) == {"provider_signing_key"}


def test_optional_parts_may_be_absent(provider: Provider) -> None:
    """No key beside the address, no MRCONFIGID, no second quote, objects instead of texts."""
    tree = provider.dstack(signing_public_key=None, quote=None, mr_config_id=bytes(48))
    for name in ("event_log", "nvidia_payload"):
        tree[name] = json.loads(tree[name])
    tree["info"] = json.dumps(tree["info"])
    later = provider.dstack(mr_config_id=b"\x02" * 33)
    for each in (tree, later):
        result = provider.judge_dstack(each)
        assert result.verdict is Verdict.AUTHENTIC
        assert outcome(result, "provider_mr_config") is Outcome.SKIP
    assert "provider_app_compose" in failed(
        provider.judge_dstack(later | {"info": tree["info"].replace("vllm", "x")})
    )


def test_nothing_is_claimed_of_a_quote_that_does_not_hold(provider: Provider) -> None:
    """One bit of the signed body: no claim of the provider's, and its checks are not reached."""
    tree = provider.dstack()
    quote = bytearray.fromhex(tree["intel_quote"])
    quote[600] ^= 1
    tree |= {"intel_quote": quote.hex(), "quote": quote.hex()}
    result = provider.judge_dstack(tree)
    assert result.verdict is Verdict.REFUSED
    assert "cpu0" not in result.claims
    assert "provider" not in result.claims
    assert outcome(result, "provider_signing_address") is Outcome.SKIP


def test_simulated_hardware_has_no_way_in(provider: Provider) -> None:
    """Under the packaged roots the same report is refused."""
    result = provider.judge_dstack(provider.dstack(), root_der=None, roots=None)
    assert {"root_untrusted", "device_root_pin"} <= failed(result)
    assert not result.simulated


def test_a_real_quote_with_words_of_ones_own_is_refused() -> None:
    """dstack's own sample is bound to 0x1234: no signing address fits it."""
    at = shared_path("evidence", "tdx", "dstack_quote_report_json__20260305")
    given = json.loads((at / "getquote.json").read_text())
    expected = json.loads((at / "expected.json").read_text())
    tree = {
        "intel_quote": given["quote"],
        "event_log": given["event_log"],
        "signing_address": "0x" + "12" * 20,
        "request_nonce": "00" * 32,
    }
    (report,) = parse_dstack(json.dumps(tree).encode()).values()
    result = verify_dstack_report(
        report,
        (at / "collateral.json").read_bytes(),
        NvidiaEndorsements(),
        now_unix_s=expected["now"],
        judge_gpus=False,
    )
    assert failed(result) == {"provider_signing_address", "provider_app_compose"}
    assert outcome(result, "compose_hash") is Outcome.PASS
