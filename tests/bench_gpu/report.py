"""What a bench says, written as it comes: one that is ended half way leaves all that it had measured."""

import os
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = "BENCH_GPU_OUT"
_BAD = ("FAILED", "BROKE", "| NO |")


class Report:
    """Lines of Markdown, printed at once and kept in build/, and in the folder that BENCH_GPU_OUT names."""

    def __init__(self, root: Path = ROOT) -> None:
        began, own = datetime.now(UTC), os.environ.get(OUT)
        self.folders = [root / "build", *([Path(own)] if own else [])]
        self._name = f"bench-gpu-{began:%Y%m%d-%H%M%S}.md"
        self._lines = [f"# Kernels and engine on a GPU, {began:%Y-%m-%d %H:%M} UTC", ""]

    @property
    def is_good(self) -> bool:
        return not any(word in line for line in self._lines for word in _BAD)

    def add(self, *lines: str) -> None:
        self._lines += lines
        print(*lines, sep="\n", flush=True)
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / self._name).write_text("\n".join([*self._lines, ""]))
