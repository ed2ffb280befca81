"""Compare what a device measured with the golden values of its manifests.

Source: NVIDIA/nvtrust and NVIDIA/attestation-sdk `gpu/verify.cpp`. Does not check: that either side is authentic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confide_attestation.nvidia.spdm import Measurement

# Measurement 35 covers the video decoder NVDEC0 and means nothing where that is disabled.
NVDEC0_INDEX = 35
_RAW = 0x80


@dataclass(frozen=True)
class Mismatch:
    """A golden value that the device did not measure; `runtime` is None if it measured nothing there."""

    index: int
    source: str
    golden: bytes
    runtime: bytes | None


@dataclass(frozen=True)
class Comparison:
    """How many of the golden values were measured; `ignored` are mismatches that mean nothing."""

    golden: int
    matched: int
    mismatches: tuple[Mismatch, ...]
    ignored: tuple[int, ...]


def conflicts(golden: Sequence[Mapping[int, tuple[bytes, ...]]]) -> tuple[int, ...]:
    """Return the indices for which more than one manifest has an active value."""
    indices = [index for each in golden for index in each]
    return tuple(sorted({index for index in indices if indices.count(index) > 1}))


def compare(
    measured: Sequence[Measurement], golden: Mapping[str, Mapping[int, tuple[bytes, ...]]], *, nvdec0_disabled: bool
) -> Comparison:
    """Compare each golden value, by the name of its manifest, with the measurement of the same index."""
    count = matched = 0
    mismatches: list[Mismatch] = []
    ignored: list[int] = []
    for source, values in golden.items():
        for index, alternatives in values.items():
            count += 1
            runtime = measured[index] if index < len(measured) else None
            if runtime is not None and not runtime.kind & _RAW and runtime.value in alternatives:
                matched += 1
            elif index == NVDEC0_INDEX and nvdec0_disabled:
                ignored.append(index)
            else:
                seen = None if runtime is None else runtime.value
                mismatches.append(Mismatch(index, source, alternatives[0], seen))
    return Comparison(count, matched, tuple(mismatches), tuple(ignored))
