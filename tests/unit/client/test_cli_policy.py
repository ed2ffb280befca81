"""`confide policy`: every demand in words, and a dry run on evidence that was kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confide.cli.policy import policy
from confide.cli.verify_url import verify
from confide_attestation.evidence import encode_bundle
from confide_attestation.policy import load_policy
from confide_attestation.policy_explain import SENTENCES, explain_policy

from tests.fakes.scene import NOW, Scene

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "deploy" / "policies").glob("*.toml"))


def run(*args: object) -> Result:
    return CliRunner().invoke(policy, [str(arg) for arg in args])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with one accepted and one refused bundle, and the policy beside it."""
    good = Scene()
    evidence, endorsements, _ = good.build()
    folder = tmp_path / "archive"
    (folder / "deeper").mkdir(parents=True)
    (folder / "good.cbor").write_bytes(encode_bundle(evidence, endorsements))
    (folder / "deeper" / "bad.cbor").write_bytes(encode_bundle(replace(evidence, manifest=b"\xa0"), endorsements))
    (tmp_path / "policy.toml").write_text(good.policy_text(endorsements.snp, evidence.manifest))
    return folder


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_is_explained(file: Path) -> None:
    """Each field of each example is said in words or named as not checked, with its reason."""
    done = run("explain", file)
    assert done.exit_code == 0, done.output
    loaded = load_policy(file.read_bytes(), file.name)
    assert loaded.id in done.output
    assert loaded.digest.hex()[:16] in done.output
    for demand in explain_policy(loaded):
        assert demand.words in done.output
    assert "refuses always" in done.output


def test_every_sentence_belongs_to_a_field() -> None:
    """No sentence is left from a field that is gone."""
    said = {
        ".".join(demand.place.split(".")[-2:])
        for file in EXAMPLES
        for text in (file.read_text(), _lenient(file.read_text(), "genoa"), _lenient(file.read_text(), "turin"))
        for demand in explain_policy(load_policy(text.encode(), file.name))
    }
    assert set(SENTENCES) - said == set()


def test_explain_says_expired_and_simulated(tmp_path: Path) -> None:
    """What an operator has to notice stands in the first lines."""
    scene = Scene(policy_fields={"not_after_unix_s": 1_700_000_000})
    evidence, endorsements, _ = scene.build()
    file = tmp_path / "policy.toml"
    file.write_text(scene.policy_text(endorsements.snp, evidence.manifest))
    said = run("explain", file).output
    assert "EXPIRED" in said
    assert "SIMULATED HARDWARE" in said
    assert "of AMD, trust only the simulated root " in said
    assert "of Intel, trust nothing" in said
    assert "root none" not in said
    tree = json.loads(run("explain", file, "--json").output)
    assert tree["kind"] == "simulated"
    assert tree["waived"]["platform.snp.chip_ids"] == "a simulated chip is made anew on each run"


def test_dry_run_lists_each_file_and_counts_failures(archive: Path) -> None:
    """One refused bundle of two: status 1, and the check that would have failed."""
    done = run("try", archive.parent / "policy.toml", archive, "--allow-simulated")
    assert done.exit_code == 1
    assert "1 accepted" in done.output
    assert "1 failed manifest_format" in done.output
    listed = json.loads(run("try", archive.parent / "policy.toml", archive, "--allow-simulated", "--json").output)
    assert {Path(each["file"]).name: each["verdict"] for each in listed} == {
        "good.cbor": "accepted",
        "bad.cbor": "refused",
    }


def test_dry_run_judges_as_of_a_time_and_needs_both_switches(archive: Path) -> None:
    """A later time expires the keyset; without the caller's switch simulated hardware is refused."""
    good = archive / "good.cbor"
    assert run("try", archive.parent / "policy.toml", good, "--allow-simulated").exit_code == 0
    late = run("try", archive.parent / "policy.toml", good, "--allow-simulated", "--at", NOW + 7200)
    assert "keyset_validity" in late.output
    assert late.exit_code == 1
    assert "1 failed simulated" in run("try", archive.parent / "policy.toml", good).output


def test_what_is_no_evidence_is_status_2(archive: Path) -> None:
    """A stray file is named, and the rest is judged all the same."""
    (archive / "notes.txt").write_text("no evidence")
    done = run("try", archive.parent / "policy.toml", archive, "--allow-simulated")
    assert done.exit_code == 2
    assert "notes.txt" in done.output
    assert "1 accepted" in done.output


def test_evidence_that_answers_an_epoch_needs_the_callers_word_for_its_age(tmp_path: Path) -> None:
    """An epoch counts if the caller knows it, and for as long as the policy says."""
    epoch = b"e" * 32
    scene = Scene(statement={"nonce": None, "epoch": epoch})
    scene.edit_policy('freshness = "nonce"', "freshness = { epoch_max_age_s = 60 }")
    evidence, endorsements, _ = scene.build()
    saved, file = tmp_path / "bundle", tmp_path / "policy.toml"
    saved.write_bytes(encode_bundle(evidence, endorsements))
    file.write_text(scene.policy_text(endorsements.snp, evidence.manifest))
    asked = ["bundle", str(saved), "--policy", str(file), "--allow-simulated", "--at", str(NOW)]
    for epochs, status in (
        ([f"{epoch.hex()}@{NOW - 60}"], 0),
        ([f"{epoch.hex()}@{NOW - 61}"], 1),
        ([f"{epoch.hex()}@{NOW + 1}"], 1),
        ([f"{'00' * 32}@{NOW}"], 1),
        ([], 1),
        ([epoch.hex()], 2),
    ):
        given = [part for each in epochs for part in ("--epoch", each)]
        done = CliRunner().invoke(verify, [*asked, *given])
        assert done.exit_code == status, done.output
        assert (status == 1) == ("FAIL nonce" in done.output)


def _lenient(text: str, refused: str) -> str:
    """Turn what an example refuses or waives into another form, so that each sentence is said by one of them."""
    levels = "{ bl = 0, tee = 0, snp = 0, ucode = 0 }"
    because = 'accepted_because = "for this test alone"'
    pinned = {32: '["' + "0" * 32 + '"]', 64: '["' + "0" * 64 + '"]', 96: '["' + "0" * 96 + '"]'}
    wanted = {
        "milan =": f'{{ {because}, min_tcb = {levels}, rises = "never" }}',
        "genoa =": f"{{ min_tcb = {levels}, rises = {{ at = 2027-01-01T00:00:00Z, min_tcb = {levels} }} }}",
        f"{refused} =": '"refused"',
        "tcb_grace =": '{ statuses = ["OutOfDate"], advisories = ["INTEL-SA-00289"], '
        'until = 2027-01-31T00:00:00Z, because = "for this test alone" }',
        "ppids =": pinned[32],
        "mr_seam =": pinned[96],
        "chip_ids =": '["' + "0" * 128 + '"]',
        "id_key_digests =": pinned[96],
        "author_key_digests =": pinned[96],
        "mit_vector =": "1",
        "user_data =": '"' + "0" * 128 + '"',
        "firmware =": '["96.00.9F.00.01"]',
        "ueids =": '["1"]',
        "revocation =": f"{{ max_age_s = 90000, rim_hold = {{ {because} }} }}",
        "freshness =": "{ epoch_max_age_s = 3600 }",
        "kind =": '"simulated"',
    }
    lines = []
    for line in text.splitlines():
        for name, value in wanted.items():
            if line.startswith(name):
                line = f"{name} {value}"
        lines.append(line)
    none = '"none"'
    roots = "\n".join(
        f"{name} = {none}"
        for name in (
            "amd_ark_sha256",
            "intel_root_sha256",
            "nvidia_device_root_spki_sha256",
            "nvidia_rim_root_spki_sha256",
        )
    )
    return "\n".join(lines) + f"\n[simulated]\n{roots}\n"
