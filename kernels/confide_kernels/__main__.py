"""Compile every kernel ahead of its first use: `python -m confide_kernels`."""

import time

began_s = time.monotonic()
print("compiling kernels for this processor", flush=True)

import confide_kernels.activation  # noqa: E402
import confide_kernels.attention  # noqa: E402, F401

print(f"done in {time.monotonic() - began_s:.1f} s")
