"""Rotary position embedding, halves layout (rotate i with i + d/2). Exact."""

from confide_kernels.rope.naive import rotate, table

__all__ = ["rotate", "table"]
