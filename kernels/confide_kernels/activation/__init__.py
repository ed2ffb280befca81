"""Gated activation of the feed-forward layer."""

from confide_kernels.activation.naive import silu_mul

__all__ = ["silu_mul"]
