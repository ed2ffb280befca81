"""Hold the house to its size and its arrows (DECISIONS 2)."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("attestation", "protocol", "client", "gateway", "enclave", "kernels", "tests")
FILE_LINES = 400
SPINE_CODE_LINES = 2_500
TICKED = re.compile(r"`(\w+)`")
# What decides whether a prompt stays confidential: the reader's shortest complete path.
SPINE = (
    "protocol/confide_protocol/*.py",
    "attestation/confide_attestation/appraise.py",
    "attestation/confide_attestation/checks/*.py",
    "client/confide/session.py",
    "enclave/confide_enclave/session.py",
    "enclave/confide_enclave/keys.py",
)


def sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def code_lines(path: Path) -> int:
    """Count lines that are neither blank, comment nor docstring."""
    text = path.read_text()
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(
            node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        ) and ast.get_docstring(node, clean=False):
            first = node.body[0]
            docstrings.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in blank:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def test_no_file_is_longer_than_a_sitting() -> None:
    """Every Python file stays within 400 lines."""
    long = {
        str(path.relative_to(ROOT)): n
        for path in sources()
        if (n := len(path.read_text().splitlines())) > FILE_LINES
    }
    assert long == {}


def test_the_spine_fits_its_budget() -> None:
    """What decides confidentiality stays within 2,500 code lines."""
    files = [path for pattern in SPINE for path in sorted(ROOT.glob(pattern))]
    assert len(files) > 10
    assert sum(map(code_lines, files)) <= SPINE_CODE_LINES


def test_the_code_line_counter_counts_code_alone(tmp_path: Path) -> None:
    """Blank lines, comments and docstrings do not count; a string over two lines counts as two."""
    sample = tmp_path / "sample.py"
    sample.write_text('"""Doc\nstring."""\n\n# why\nx = """a\nb"""\n\n\ndef f():\n    """Doc."""\n    return x\n')
    assert code_lines(sample) == 4


def test_import_contracts_hold() -> None:
    """The arrows between the rooms are those of pyproject.toml."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_only_appraise_makes_an_attested_keyset() -> None:
    """No other module calls AttestedKeyset's constructor."""
    makers = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.parts[len(ROOT.parts)] != "tests" and re.search(r"\bAttestedKeyset\(", path.read_text())
    ]
    assert [maker for maker in makers if not maker.endswith("result.py")] == [
        "attestation/confide_attestation/appraise.py"
    ]


@pytest.mark.parametrize("module", ["confide", "confide_protocol", "confide_attestation", "confide.cli"])
def test_the_base_install_needs_neither_torch_nor_a_server(module: str) -> None:
    """Importing the SDK and the verifier pulls in none of the extras."""
    probe = (
        f"import sys, {module}; print([m for m in ('torch', 'starlette', 'openai', 'uvicorn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_kernels_does_not_shadow_the_package_of_that_name() -> None:
    """`kernels/__init__.py` would hide the `kernels` package that transformers imports."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not [room for room in ROOMS if room != "tests" and (ROOT / room / "__init__.py").exists()]


def test_locks_name_no_host_and_pin_everything_by_hash() -> None:
    """Lock files hold versions and hashes, and leave torch to pip."""
    for lock in sorted((ROOT / "deploy" / "locks").glob("*.lock")):
        text = lock.read_text()
        assert "://" not in text, lock.name
        entries = re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE)
        assert entries, lock.name
        assert "torch" not in entries
        assert len(re.findall(r"^[a-z0-9._-]+==(?:[^\n]*\\\n)*[^\n]*--hash=sha256:", text, re.MULTILINE)) == len(
            entries
        )


def test_every_check_stands_in_the_specification() -> None:
    """SPEC lists every check of every verifier, and no other, in the order of the results (5.6, 5.8)."""
    from confide_attestation.checks.ids import BINDING_CHECKS, POLICY_CHECKS
    from confide_attestation.eventlog.ids import EventLogCheck
    from confide_attestation.foreign.ids import ForeignCheck
    from confide_attestation.nvidia.ids import NrasCheck, NvidiaCheck
    from confide_attestation.snp.ids import SnpCheck
    from confide_attestation.tdx.ids import TdxCheck
    from confide_attestation.vtpm.ids import VtpmCheck

    spec = (ROOT / "SPEC.md").read_text()
    appraisal, alone = spec.partition("5.6 Checks.")[2].partition("5.7")[0], spec.partition("5.8 *")[2]
    listed = [
        name for row in re.findall(r"^\| (`[^|]+) \|", appraisal, re.MULTILINE) for name in TICKED.findall(row)
    ]
    assert listed == [*POLICY_CHECKS, *SnpCheck, *BINDING_CHECKS]
    table = alone.partition("5.8.1")[0]
    cells = re.findall(r"^\|[^|]*\|[^|]*\| (`[^|]+) \|", table, re.MULTILINE)
    listed = [name for cell in cells for name in TICKED.findall(cell)]
    assert listed == [*TdxCheck, *NvidiaCheck, *NrasCheck, *VtpmCheck, *EventLogCheck, *ForeignCheck]


def test_every_label_stands_in_the_specification() -> None:
    """SPEC names every label that is hashed, signed or sent."""
    from confide_protocol import labels

    spec = (ROOT / "SPEC.md").read_text()
    names = [
        name
        for name in vars(labels)
        if name.startswith(("PURPOSE_", "LABEL_", "SALT_", "FIELD_", "EAT_", "MEDIA_"))
    ]
    assert len(names) > 20
    texts = {name: value.decode() if isinstance(value := getattr(labels, name), bytes) else value for name in names}
    assert [name for name, text in texts.items() if text not in spec] == []


def test_what_the_readme_names_is_there() -> None:
    """Every `confide.Name` of the README, and everything that the package says it exports, can be had."""
    import confide

    named = set(re.findall(r"\bconfide\.([A-Z]\w+)", (ROOT / "README.md").read_text()))
    assert named
    assert [name for name in named | set(confide.__all__) if not hasattr(confide, name)] == []
