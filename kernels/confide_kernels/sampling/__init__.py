"""Draw the next token of each row."""

from confide_kernels.sampling.naive import sample

__all__ = ["sample"]
