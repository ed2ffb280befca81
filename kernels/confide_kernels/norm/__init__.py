"""RMS norm: of floats, fused with the residual add before it, and of rows on their way to integer products."""

from confide_kernels.norm.naive import add_rms_norm, head_norm_exact, rms_norm, rms_norm_int8

__all__ = ["add_rms_norm", "head_norm_exact", "rms_norm", "rms_norm_int8"]
