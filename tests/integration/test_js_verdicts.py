"""The TypeScript package judges evidence and policies as this one does, check by check and word by word."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confide_attestation.evidence import CpuEvidence, CpuKind, EvidenceBundle, encode_bundle
from confide_attestation.policy import load_policy
from confide_attestation.policy_text import SimulatedGpus, simulated_policy, simulated_tdx_policy
from confide_attestation.result import AttestationResult
from confide_attestation.roots.amd import ARK_PEM, ASK_PEM, ASVK_PEM
from confide_protocol.errors import ConfideError

from tests.conformance import simulated
from tests.conformance.mutate import mutations
from tests.conformance.real import cases as real_cases
from tests.fakes.azure_scene import SNP as AZURE_SNP
from tests.fakes.azure_scene import TDX as AZURE_TDX
from tests.fakes.azure_scene import AzureScene
from tests.fakes.gpu_scene import GpuScene
from tests.fakes.js import FOLDER, Js, b64, running_js
from tests.fakes.scene import NONCE, NOW, Scene
from tests.fakes.tdx_scene import TdxScene
from tests.unit.attestation.test_appraise import dated, listed, rising
from tests.unit.attestation.test_appraise_negatives import CASES, Corruption

MUTATION_STEP = 61


@pytest.fixture(scope="module")
def js() -> Iterator[Js]:
    with running_js() as running:
        yield running


# --- The same decision


def judged(js: Js, scene: Scene) -> tuple[dict[str, Any], AttestationResult]:
    """Return both verdicts on one scene."""
    texts: list[str] = []
    write = scene.policy_text
    scene.policy_text = lambda *parts: texts.append(write(*parts)) or texts[-1]  # type: ignore[method-assign,func-returns-value]
    evidence, endorsements, policy = scene.build()
    arguments: dict[str, Any] = {
        "now_unix_s": NOW, "floor": 1, "nonce": NONCE, "allow_simulated": True, **scene.arguments,
    }  # fmt: skip
    scene.build = lambda: (evidence, endorsements, policy)  # type: ignore[method-assign]
    epochs = {digest.hex(): at for digest, at in arguments.get("epochs", {}).items()}
    theirs = js(
        "appraise",
        bundle=b64(encode_bundle(evidence, endorsements)),
        policy=texts[-1],
        now=arguments["now_unix_s"],
        floor=arguments["floor"],
        nonce=b64(arguments["nonce"]),
        epochs=epochs,
        allow=arguments["allow_simulated"],
    )
    return theirs, scene.appraise()


def assert_same(theirs: dict[str, Any], ours: AttestationResult) -> None:
    assert theirs.get("error") is None, theirs
    assert theirs["checks"] == [[check.id, check.outcome.value, check.detail] for check in ours.checks]
    assert theirs["verdict"] == ours.verdict.value
    assert theirs["claims"] == {name: dict(claims) for name, claims in ours.claims.items()}
    assert ours.policy_digest is not None
    assert theirs["policy"] == ours.policy_digest.hex()
    keyset = ours.keyset
    assert theirs.get("digest") == (None if keyset is None else keyset.result_digest.hex())
    assert theirs.get("until") == (None if keyset is None else keyset.valid_until_unix_s)


@pytest.mark.parametrize("key", [None, b"\7" * 32, b"\7" * 31])
def test_a_keyset_with_a_key_of_ehbp_is_judged_alike(js: Js, key: bytes | None) -> None:
    """With the key, without it, and with one that is none: the same checks, claims and digests."""
    assert_same(*judged(js, Scene(keyset={"ehbp_key": key})))


@pytest.mark.parametrize("corrupt", [case[2] for case in CASES], ids=[case[0] for case in CASES])
def test_every_refusal_is_the_same(js: Js, corrupt: Corruption) -> None:
    """Each corruption fails the same checks, and every check says the same words, digest by digest."""
    scene = Scene()
    corrupt(scene)
    assert_same(*judged(js, scene))


ACCEPTED: dict[str, Callable[[Scene], object]] = {
    "as it is": lambda scene: None,
    "Turin, version 5": lambda scene: (scene.amd.update(product="Turin"), scene.report.update(version=5)),
    "version 2": lambda scene: scene.report.update(version=2),
    "VLEK": lambda scene: (
        scene.amd.update(signer="VLEK"),
        scene.edit_policy('signers = ["VCEK"]', 'signers = ["VLEK"]'),
    ),
    "a list": listed,
    "a rise": rising,
    "an epoch": dated,
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_every_acceptance_is_the_same(js: Js, change: Callable[[Scene], object]) -> None:
    """Accepted evidence yields the same claims, the same end and the same result digest."""
    scene = Scene()
    change(scene)
    theirs, ours = judged(js, scene)
    assert ours.keyset is not None
    assert_same(theirs, ours)


def test_evidence_of_another_kind_is_judged_as_none(js: Js) -> None:
    """A report under another kind's name counts as absent in both."""
    scene = Scene()
    scene.bundle.update(cpu=CpuEvidence(CpuKind.TDX, scene.build()[0].cpu.report))
    assert_same(*judged(js, scene))


FOREIGN: dict[str, Callable[[], EvidenceBundle]] = {
    "tdx": lambda: TdxScene().build()[0],
    "azure-sev-snp": lambda: AzureScene(AZURE_SNP).build()[0],
    "azure-tdx": lambda: AzureScene(AZURE_TDX).build()[0],
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_genuine_evidence_of_another_machine_is_judged_as_none(js: Js, kind: str) -> None:
    """What another policy would accept, this one refuses in both, check by check."""
    scene, foreign = Scene(), FOREIGN[kind]()
    assert foreign.cpu.kind.value == kind
    scene.bundle.update(cpu=foreign.cpu)
    theirs, ours = judged(js, scene)
    assert ours.keyset is None
    assert_same(theirs, ours)


def test_gpus_that_no_policy_asks_for(js: Js) -> None:
    """A policy without GPUs says the same of a machine that shows one."""
    scene = Scene()
    scene.bundle.update(gpus=GpuScene().build()[0].gpus)
    assert_same(*judged(js, scene))


def test_garbage_for_evidence(js: Js) -> None:
    """What is no bundle has one code."""
    scene = Scene()
    evidence, endorsements, _ = scene.build()
    good, text = encode_bundle(evidence, endorsements), scene.policy_text(endorsements.snp, evidence.manifest)
    for data in (b"", b"text", b"\xa0", good[:-1], good + b"\0", good.replace(b"sev-snp", b"sev-xyz")):
        answer = js("appraise", bundle=b64(data), policy=text, now=NOW, floor=1, nonce=b64(NONCE), allow=True)
        assert answer["error"]["code"] == "evidence_malformed"


def snp_cases() -> list[Any]:
    return [case for case in (*real_cases(), *simulated.cases()) if case.kind == "snp"]


@pytest.mark.parametrize("case", snp_cases(), ids=lambda case: case.name)
def test_mutations_of_accepted_reports(js: Js, case: Any) -> None:
    """A sample of the conformance suite, of real and simulated machines: accepted as it is, then never."""

    def judge(files: dict[str, bytes], now: int) -> dict[str, Any]:
        roots = {"root": case.roots["root"]} if "root" in case.roots else {}
        return js("snp", files={name: b64(data) for name, data in {**files, **roots}.items()}, now=now)

    assert judge(dict(case.files), case.now_unix_s)["holds"]
    others = [each for each in snp_cases() if each.name != case.name]
    refused = 0
    for mutation in list(mutations(case, others, full=False))[::MUTATION_STEP]:
        files = {name: data for name, data in {**case.files, **mutation.changed}.items() if data is not None}
        answer = judge(files, mutation.now_unix_s or case.now_unix_s)
        if not mutation.dont_care:
            assert not answer["holds"], mutation.name
            assert set(answer["failed"]) & mutation.checks, mutation.name
            refused += 1
    assert refused > 20


# --- The same policy files


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('serial = 1', 'serial = "1"'),
        ('serial = 1', "serial = 1.0"),
        ('serial = 1', ""),
        ('serial = 1', "serial = 1\nextra = 2"),
        ('signers = ["VCEK"]', "signers = []"),
        ("vmpl = [0]", "vmpl = [4]"),
        ('measurements = ["', 'measurements = ["AB'),
        ('freshness = "nonce"', 'freshness = "never"'),
        ('freshness = "nonce"', 'freshness = { waived = "short" }'),
        ('kind = "simulated"', 'kind = "imagined"'),
        ('shape = "bucketed"', 'shape = "constant"'),
        ('genoa = { min_tcb', 'genoa = { min_tbc'),
        ("[session]", "[session"),
        ("Z\nkind", "\nkind"),
    ],
)  # fmt: skip
def test_wrong_policies_name_the_same_field(js: Js, old: str, new: str) -> None:
    """What this client refuses to read, that one refuses too, at the same field."""
    text = Scene().policy_text(Scene().device.endorsements, b"")
    assert old in text
    wrong = text.replace(old, new, 1)
    with pytest.raises(ConfideError) as caught:
        load_policy(wrong.encode(), "policy")
    answer = js("policy", text=wrong)["error"]
    assert (answer["code"], answer["field"]) == (caught.value.code, vars(caught.value)["field"])


PINS: dict[str, Any] = {"manifest_digest": bytes(32), "not_after_unix_s": NOW}
GPUS = SimulatedGpus(1, bytes(32), bytes(32), "1", "1")
OTHERS = {
    "gpu": simulated_policy(ark_sha256=bytes(32), measurement=bytes(48), gpus=GPUS, **PINS),
    "tdx": simulated_tdx_policy(root_sha256=bytes(32), mr_td=bytes(48), rtmrs=[bytes(48)] * 4, **PINS),
    "azure-sev-snp": "[platform]\nprofile = 'azure/sev-snp'",
    "azure-tdx": "[platform]\nprofile = 'azure/tdx'",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_evidence_is_refused_by_name(js: Js, kind: str) -> None:
    """A policy that demands what the package cannot judge is refused before anything is sent."""
    answer = js.open("http://127.0.0.1:9", OTHERS[kind])["error"]
    assert (answer["code"], answer["kind"]) == ("cannot_judge", kind)
    assert answer["message"].startswith(f"this client cannot judge {kind} evidence")
    assert js("sent")["sent"] == []


def test_the_roots_are_the_same(js: Js) -> None:
    """AMD's certificates in the package are those of roots/amd.py, and no other."""
    text = (FOLDER / "src" / "snp" / "roots.ts").read_text()
    packaged = ["".join(part.split()) for part in text.split("`")[1::2]]
    pems = [pem for table in (ARK_PEM, ASK_PEM, ASVK_PEM) for pem in table.values()]
    assert packaged == ["".join(pem.split("-----")[2].split()) for pem in pems]
