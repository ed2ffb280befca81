"""RMS norm, alone and fused with the residual add before it. Rows are independent of one another."""

from confide_kernels.norm.naive import add_rms_norm, rms_norm

__all__ = ["add_rms_norm", "rms_norm"]
