"""A machine of CPU and GPUs behind the real processes: what a gateway drops or splices, and what makes no keys."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from confide.cli import main
from confide.playground import Child
from confide_attestation.errors import AppraisalRejected
from confide_attestation.evidence import Endorsements, EvidenceBundle, encode_bundle, parse_bundle
from confide_attestation.policy import load_policy

from tests.fakes.hostile import Hostile, hostile_gateway
from tests.fakes.stack import ANSWER, Stack, ask, running_stack

Served = tuple[EvidenceBundle, Endorsements]


@pytest.fixture(scope="module")
def running(stack: Stack) -> Iterator[Hostile]:
    with hostile_gateway(stack.url) as hostile:
        yield hostile


@pytest.fixture
def hostile(running: Hostile) -> Hostile:
    running.reset()
    return running


@pytest.fixture(scope="module")
def two_gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """TDX below, two GPUs above."""
    with running_stack(tmp_path_factory.mktemp("tdx"), platform="tdx", gpus=2) as stack:
        yield stack


def test_cpu_and_gpu_stand_in_one_result(stack: Stack) -> None:
    """The client's own appraisal names both, under one nonce and keyset."""
    result = stack.relay().verify()
    assert result.failed == ()
    assert set(result.claims) == {"cpu0", "gpu0", "keyset"}
    assert result.claims["gpu0"]["measres"] == "success"


LIES: dict[str, tuple[Callable[[Served, Served], Served], set[str]]] = {
    "GPU evidence dropped": (
        lambda now, before: (replace(now[0], gpus=()), now[1]),
        {"gpu_evidence", "gpu_count"},
    ),
    "GPU evidence of another answer": (
        lambda now, before: (replace(now[0], gpus=before[0].gpus), now[1]),
        {"gpu_evidence", "gpu_nonce"},
    ),
    "the same GPU twice": (
        lambda now, before: (replace(now[0], gpus=now[0].gpus * 2), now[1]),
        {"gpu_evidence", "duplicate_device", "gpu_count"},
    ),
    "CPU evidence of another answer": (
        lambda now, before: (replace(now[0], cpu=before[0].cpu), now[1]),
        {"report_data"},
    ),
    "manifests dropped": (
        lambda now, before: (now[0], replace(now[1], nvidia=replace(now[1].nvidia, rims=()))),
        {"driver_rim_missing", "firmware_rim_missing"},
    ),
    "revocation answers dropped": (
        lambda now, before: (now[0], replace(now[1], nvidia=replace(now[1].nvidia, ocsp=None))),
        set(),
    ),
    "the chip's certificate dropped": (
        lambda now, before: (now[0], replace(now[1], snp=None)),
        {"vek_format"},
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_a_gateway_drops_or_splices_is_refused(stack: Stack, hostile: Hostile, lie: str) -> None:
    """The named checks fail, and nothing is sealed."""
    change, named = LIES[lie]
    served: list[Served] = []

    def tamper(data: bytes) -> bytes:
        served.append(parse_bundle(data))
        return encode_bundle(*change(served[-1], served[0])) if len(served) > 1 else data

    hostile.evidence, before = tamper, len(hostile.requests)
    assert stack.relay(hostile.url).ready()
    with pytest.raises(AppraisalRejected) as caught:
        ask(stack.openai(base_url=hostile.url))
    assert named <= {check.id for check in caught.value.result.failed}
    assert caught.value.result.keyset is None
    assert len(hostile.requests) == before


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("gpus = 1", "gpus = 2", "gpu_count"),
        ('"HOPPER"', '"BLACKWELL"', "gpu_arch_denied"),
        ('"SPT"', '"MPT"', "gpu_mode_denied"),
        ('min_driver = "550', 'min_driver = "551', "min_driver"),
        ('firmware = ["96.00', 'firmware = ["96.01', "gpu_firmware"),
    ],
)
def test_a_policy_for_other_gpus_refuses(stack: Stack, tmp_path: Path, old: str, new: str, named: str) -> None:
    """Each demand of the policy bites alone."""
    text = stack.ground.policy_file.read_text()
    assert old in text
    (tmp_path / "policy.toml").write_text(text.replace(old, new))
    with pytest.raises(AppraisalRejected) as caught:
        ask(stack.openai(policy=tmp_path / "policy.toml"))
    assert [check.id for check in caught.value.result.failed] == [named]


def test_a_policy_without_gpus_refuses_a_machine_with_one(stack: Stack, tmp_path: Path) -> None:
    """What nobody judges is not accepted."""
    text = stack.ground.policy_file.read_text()
    head, _, _ = text.replace("\n[simulated]", 'gpu = "none"\n\n[simulated]').partition("\n[gpu]")
    (tmp_path / "policy.toml").write_text(head)
    with pytest.raises(AppraisalRejected) as caught:
        ask(stack.openai(policy=tmp_path / "policy.toml"))
    assert [check.id for check in caught.value.result.failed] == ["gpu_evidence"]


def test_tdx_with_two_gpus_answers_and_is_audited(two_gpus: Stack, tmp_path: Path) -> None:
    """The other platform, end to end: verified, answered, signed, and judged again offline."""
    result = two_gpus.relay().verify()
    assert set(result.claims) == {"cpu0", "gpu0", "gpu1", "keyset"}
    assert {"quote_signature", "rtmr3", "gpu_measurements"} <= {check.id for check in result.checks}
    assert ANSWER in str(ask(two_gpus.openai()))
    key = two_gpus.ground.write("cli.key", two_gpus.ground.api_key)
    kept = str(tmp_path / "kept.audit")
    there = ["--policy", str(two_gpus.ground.policy_file), "--allow-simulated", "--api-key-file", str(key)]
    asked = CliRunner().invoke(main, ["chat", "Hello", "--url", two_gpus.url, *there, "--save", kept])
    assert asked.exit_code == 0, asked.output
    judged = CliRunner().invoke(main, ["audit", kept, "--allow-simulated"])
    assert judged.exit_code == 0, judged.output
    assert "gpu_measurements" in judged.output


def test_each_platforms_policy_refuses_the_other(stack: Stack, two_gpus: Stack) -> None:
    """Evidence of another kind is as good as none."""
    for one, other in ((stack, two_gpus), (two_gpus, stack)):
        with pytest.raises(AppraisalRejected) as caught:
            ask(one.openai(policy=other.ground.policy_file))
        assert {"cpu_kind", "platform", "manifest"} <= {check.id for check in caught.value.result.failed}


def words_of(child: Child) -> tuple[int, list[str]]:
    status = child.process.wait(60)
    return status, [line for line in child.log.read_text().splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("nvidia_device_root_spki_sha256", "00" * 32, "gpu_rejected: no keys are made: device_root_pin"),
        ("nvidia_rim_root_spki_sha256", "00" * 32, "gpu_rejected: no keys are made: rim_root_pin"),
        ("endorsements_file", "", "gpu_rejected: no keys are made: driver_rim_missing"),
        ("platform", "simulated-tdx", "device_unavailable: the device simulates sev-snp"),
    ],
)
def test_an_enclave_whose_hardware_does_not_pass_makes_no_keys(
    stack: Stack, old: str, new: str, words: str
) -> None:
    """One line, exit status 3, and it never says that it is ready."""
    lines = (stack.ground.folder / "enclave.toml").read_text().splitlines()
    mended = [f'{old} = "{new}"' if line.startswith(old) else line for line in lines]
    stack.ground.write("bad.toml", "\n".join(line for line in mended if not line.endswith('= ""')))
    try:
        child = stack.ground.start_enclave("bad.toml", "bad")
        status, told = words_of(child)
        assert child.process.stdout is not None
        assert (status, child.process.stdout.read()) == (3, b"")
        (line,) = told
        assert line.startswith(f"confide enclave: {words}")
    finally:
        stack.ground.stop("bad")


def test_the_playgrounds_policy_is_one_a_person_can_read(two_gpus: Stack) -> None:
    """It loads, pins every register, and says that it is simulated."""
    policy = load_policy(two_gpus.ground.policy_file.read_bytes(), "policy.toml")
    assert (policy.kind, policy.platform_name) == ("simulated", "simulated-tdx")
    assert policy.gpus.gpus == 2
