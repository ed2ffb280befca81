"""Every command of `confide verify` on every kind of file in every place: exit 2 and one line, at once.

And on evidence that holds: the page and the EAR that each of them writes.
"""

import json
import os
import re
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confide.cli.verify import verify
from confide.cli.verify_url import bundle
from confide_attestation.evidence import encode_bundle

from tests.fakes.nras import NONCE as NRAS_NONCE
from tests.fakes.nras import NOW as NRAS_NOW
from tests.fakes.nras import Nras
from tests.fakes.scene import NOW, Scene
from tests.shared import shared_path

assert bundle  # the group is whole once it is imported
WAIT_S = 20
SNP, TDX, AZURE = "snp/genoa_v3_vcek_ms", "tdx/dstack_quote_report_json__20260305", "azure/snp_milan_live"
HOPPER = "nvidia/hopper_550.90.07"
# Each command line, with the files of its places in braces; the time is that of the evidence.
COMMANDS = {
    "snp": f"snp {{{SNP}/report.bin}} --vek {{{SNP}/vek.der}} --ask {{{SNP}/ask.der}} --ark {{{SNP}/ark.der}}"
    " --at 1775441107",
    "tdx": f"tdx {{{TDX}/quote.bin}} --collateral {{{TDX}/collateral.json}} --at 1772707803",
    "eventlog": f"eventlog {{{TDX}/getquote.json}} --quote {{{TDX}/quote.bin}}"
    f" --collateral {{{TDX}/collateral.json}} --at 1772707803",
    "azure": f"azure {{{AZURE}/hcl_report.bin}} --tpm-quote {{{AZURE}/tpm_quote.msg}}"
    f" --tpm-signature {{{AZURE}/tpm_quote.sig}} --pcrs {{{AZURE}/pcrs_sha256.json}} --vek {{{AZURE}/vcek.der}}"
    f" --ask {{{AZURE}/ask.der}} --ark {{{AZURE}/ark.der}} --at AZURE",
    "nvidia": f"nvidia {{{HOPPER}/report.bin}} --chain {{{HOPPER}/chain.pem}} --rim {{{HOPPER}/driver_rim.xml}}"
    f" --rim {{{HOPPER}/vbios_rim.xml}} --nonce NONCE --at HOPPER",
    "bundle": "bundle {bundle} --at " + str(NOW),
    "report": f"report {{report}} --collateral {{{TDX}/collateral.json}} --no-gpu --at 1772707803",
    "air": "air {air} --key " + "11" * 32,
    "nras": f"nras {{tokens}} --jwks {{jwks}} --nonce {NRAS_NONCE.hex()} --at {NRAS_NOW}",
}
PLACE = re.compile(r"\{([^}]*)\}")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of every kind that is nobody's place, good or bad."""
    at, nras = tmp_path_factory.mktemp("inputs"), Nras()
    quote = json.loads((shared_path("evidence", *TDX.split("/")) / "getquote.json").read_text())
    report = {"intel_quote": quote["quote"], "event_log": quote["event_log"], "signing_address": "12" * 20}
    lol = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 20))
    contents = {
        "report": json.dumps(report).encode(),
        "bundle": encode_bundle(*Scene().build()[:2]),
        "empty": b"",
        "utf16": "\ufeff{}".encode("utf-16"),
        "not_utf8": b'{"a": "\xff\xfe"}',
        "deep.json": b"[" * 200_000,
        "deep_cbor": b"\x81" * 200_000,
        "bomb.xml": f'<!DOCTYPE l [<!ENTITY l0 "l">{lol}]><SoftwareIdentity>&l19;</SoftwareIdentity>'.encode(),
        "number.json": b"9" * 10_000,
        "zeros": bytes(1184),
        "text": b"hello\n",
        "pem": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "air": b"\xd2\x84",
        "tokens": nras.bundle(),
        "jwks": nras.jwks,
    }
    paths = {name: at / name for name in contents}
    for name, data in contents.items():
        paths[name].write_bytes(data)
    paths["huge"] = at / "huge"
    with paths["huge"].open("wb") as file:
        file.truncate(1 << 30)
    paths["directory"] = at / "directory"
    paths["directory"].mkdir()
    paths["fifo"] = at / "fifo"
    os.mkfifo(paths["fifo"])
    paths["loop"] = at / "loop"
    paths["loop"].symlink_to(paths["loop"])
    paths["absent"] = at / "absent\n\x1b[2J"
    paths["device"] = Path("/dev/zero")
    return paths


def command_line(name: str, files: dict[str, Path], **replaced: Path) -> list[str]:
    """Return a command line with its own files, or those of `replaced` by the number of their place (p0, p1 …)."""
    words = []
    number = 0
    for word in COMMANDS[name].split():
        if place := PLACE.fullmatch(word):
            own = files.get(place[1]) or shared_path("evidence", *place[1].split("/"))
            words.append(str(replaced.get(f"p{number}", own)))
            number += 1
        else:
            words.append(word)
    expected = {
        "AZURE": ("azure", "snp_milan_live", "now"),
        "HOPPER": ("nvidia", "hopper_550.90.07", "now"),
        "NONCE": ("nvidia", "hopper_550.90.07", "nonce"),
    }
    for word, (folder, inner, key) in expected.items():
        if word in words:
            tree = json.loads((shared_path("evidence", folder, inner) / "expected.json").read_text())
            words[words.index(word)] = str(tree[key])
    return words


def run(words: list[str]) -> Result:
    """Run a command in a thread of its own: one that waits for ever fails the test, and does not hang it."""
    done: list[Result] = []
    thread = threading.Thread(target=lambda: done.append(CliRunner().invoke(verify, words)), daemon=True)
    thread.start()
    thread.join(WAIT_S)
    assert done, f"{words} is still waiting"
    return done[0]


def places(name: str) -> int:
    return len(PLACE.findall(COMMANDS[name]))


BAD = ("empty", "utf16", "not_utf8", "deep.json", "deep_cbor", "bomb.xml", "number.json", "text", "huge",
       "directory", "fifo", "loop", "absent", "device")  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("bad", BAD)
def test_a_file_of_no_kind_is_one_line_and_exit_2(name: str, bad: str, files: dict[str, Path]) -> None:
    """In every place of every command; the line names the file, and nothing that a terminal would obey."""
    for number in range(places(name)):
        result = run(command_line(name, files, **{f"p{number}": files[bad]}))
        if bad == "bomb.xml" and "rim_format" in result.output:
            # By its root it is a manifest, and refused as one: nothing in it is unfolded.
            assert (name, result.exit_code) == ("nvidia", 1)
            continue
        assert result.exit_code == 2, (number, result.output, result.exception)
        assert not result.exception or isinstance(result.exception, SystemExit)
        (line,) = result.stderr.splitlines()
        assert line.isprintable()
        assert "absent" in line if bad == "absent" else str(files[bad]) in line, (number, line)
        if bad == "huge":
            assert "1073741824 bytes" in line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_file_in_the_place_of_every_other_never_passes(name: str, files: dict[str, Path]) -> None:
    """Files of all commands go through all places: exit 2 with one line, or 1 where it is of the same kind."""
    others = {each for line in COMMANDS.values() for each in PLACE.findall(line) if not each.startswith("azure/")}
    # The provider's report has the very event log of dstack's answer.
    same = {f"{TDX}/getquote.json": "report"}
    own = PLACE.findall(COMMANDS[name])
    for number in range(places(name)):
        for other in sorted(others - {own[number], same.get(own[number])}):
            path = files.get(other) or shared_path("evidence", *other.split("/"))
            result = run(command_line(name, files, **{f"p{number}": path}))
            assert result.exit_code in (1, 2), (number, other, result.output)
            assert not result.exception or isinstance(result.exception, SystemExit), (number, other)
            if result.exit_code == 2:
                assert len(result.stderr.splitlines()) == 1, (number, other, result.stderr)


HOLDS = ("snp", "tdx", "eventlog", "azure", "nvidia", "nras")


@pytest.mark.parametrize("name", [*HOLDS, "report", "bundle"])
def test_every_command_writes_the_page_and_the_ear(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    """Both say what the transcript says; a page needs nothing else."""
    page, ear = tmp_path / "page.html", tmp_path / "ear.json"
    result = run([*command_line(name, files), "--html", str(page), "--ear", str(ear)])
    assert result.exit_code == (0 if name in HOLDS else 1), result.output
    verdict = result.stdout.splitlines()[-1]
    text = page.read_text()
    assert verdict.split(":")[0] in text
    assert "http" not in re.sub(r"http-equiv|https?://[\w./?=&;-]+", "", text)
    assert text.count("<html") == 1
    tree = json.loads(ear.read_text())
    assert tree["ear.status"] == ("none" if name in HOLDS else "contraindicated")
    assert tree["submods"]
    listed = [check[0] for sub in (tree, *tree["submods"].values()) for check in (sub.get("confide.checks") or ())]
    assert set(listed) == {
        each["id"] for each in json.loads(run([*command_line(name, files), "--json"]).stdout)["checks"]
    }


def test_a_place_that_cannot_be_written_is_one_line_and_exit_2(files: dict[str, Path], tmp_path: Path) -> None:
    """A directory, and one that is not there."""
    for option in ("--html", "--ear"):
        for path in (tmp_path, tmp_path / "none" / "page"):
            result = run([*command_line("tdx", files), option, str(path)])
            assert (result.exit_code, result.stdout) == (2, "")
            assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["snp", f"{{{SNP}/report.bin}}"],
            ("kdsintf.amd.com/vcek/v1/Genoa/", "blSPL=", "confide endorsements fetch"),
        ),
        (["snp", "{snp/turin_v5_vcek_ms/report.bin}"], ("kdsintf.amd.com/vcek/v1/Turin/", "fmcSPL=")),
        (["snp", "{snp/milan_v2_vcek_trustee/report.bin}"], ("vcek/v1/Milan/", " or ", "vcek/v1/Genoa/")),
        (["snp", "{snp/milan_v3_vlek_aws_trustee/report.bin}"], ("VLEK", "--vek")),
        (["tdx", f"{{{TDX}/quote.bin}}"], ("tcb?fmspc=", "pckcrl?ca=", "confide endorsements import")),
    ],
)
def test_a_missing_endorsement_is_said_with_its_address(
    words: list[str], said: tuple[str, ...], files: dict[str, Path]
) -> None:
    """One line, exit 2: what is missing, where the vendor has it, how to bring it."""
    args = [str(shared_path("evidence", *p[1].split("/"))) if (p := PLACE.fullmatch(w)) else w for w in words]
    result = run(args)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert all(part in line for part in said), line


def test_a_missing_manifest_is_said_with_its_address(files: dict[str, Path]) -> None:
    """A refusal that names the id and the address of NVIDIA's manifest."""
    words = [word for word in command_line("nvidia", files) if not word.endswith("_rim.xml") and word != "--rim"]
    result = run(words)
    assert result.exit_code == 1
    assert re.search(r"FAIL driver_rim_missing — .*https://\S+/NV_GPU_DRIVER_GH100_", result.stdout)
