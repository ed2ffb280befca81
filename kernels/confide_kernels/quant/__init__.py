"""Round rows to whole levels, each row by its own greatest magnitude. Exact."""

from confide_kernels.quant.naive import LEVELS, quantise, to_levels

__all__ = ["LEVELS", "quantise", "to_levels"]
