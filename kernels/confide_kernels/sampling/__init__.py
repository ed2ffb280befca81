"""Draw the next token of each row."""

from confide_kernels.sampling.naive import adjust, forbid, log_probabilities, sample

__all__ = ["adjust", "forbid", "log_probabilities", "sample"]
