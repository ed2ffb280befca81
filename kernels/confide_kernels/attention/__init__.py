"""Grouped-query attention over cached keys and values: one chunk of a prompt, or one new row of many sequences."""

from confide_kernels.attention.naive import decode, prefill

__all__ = ["decode", "prefill"]
