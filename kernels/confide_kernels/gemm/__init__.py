"""Matrix products of the linear layers."""

from confide_kernels.gemm.naive import linear

__all__ = ["linear"]
