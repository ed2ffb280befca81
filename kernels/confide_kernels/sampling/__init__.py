"""Draw the next token of each row."""

from torch import Tensor

from confide_kernels.place import on_gpu, send
from confide_kernels.sampling import naive

__all__ = ["adjust", "forbid", "log_probabilities", "sample"]


def sample(
    logits: Tensor,
    temperatures: Tensor,
    top_ks: Tensor,
    top_ps: Tensor,
    min_ps: Tensor,
    uniforms: Tensor,
    *,
    cuts: bool | None = None,
    nucleus: bool | None = None,
) -> Tensor:
    """Return one id per row: the greatest logit at temperature 0, else a draw by inverse CDF in the order of ids.

    logits: [n, vocabulary], -inf for what may not come; temperatures >= 0, top_ps in (0, 1], min_ps in [0, 1],
    uniforms in [0, 1): [n] float64; top_ks: [n] int64, 0 for no limit. Returns [n] int64, where the logits are.
    Drawn from are, in this order: the top_k greatest; of those what has at least min_p of the greatest one's
    probability; of those the fewest, greatest first, that reach top_p of what is left.
    For GPUs the settings may be there or on the CPU; a row of which nothing can be drawn gives -1; and cuts and
    nucleus say whether any row has a top_k or a top_p, which is seen from settings on the CPU.
    """
    if on_gpu(logits):
        from confide_kernels.sampling import triton

        settings = temperatures, top_ks, top_ps, min_ps, uniforms
        return triton.sample(logits, *settings, cuts=cuts, nucleus=nucleus)
    return naive.sample(logits, temperatures, top_ks, top_ps, min_ps, uniforms)


def adjust(logits: Tensor, ids: Tensor, repetition: Tensor, shift: Tensor) -> Tensor:
    """Return one row with some logits changed: made less likely by the factor `repetition`, then shifted.

    logits: [vocabulary]; ids: [n] int64, each once; repetition, shift: [n] float64; these may be on the CPU. A
    positive logit is divided by the factor, a negative one multiplied.
    """
    return naive.adjust(logits, *(send(each, logits.device) for each in (ids, repetition, shift)))


def forbid(logits: Tensor, allowed: Tensor) -> Tensor:
    """Return one row with -inf wherever a bit is 0. allowed: uint8, the lowest bit first, maybe on the CPU; what it
    lacks is 0.
    """
    return naive.forbid(logits, send(allowed, logits.device))


def log_probabilities(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return one row's natural log-probabilities, float64, and the ids of the `count` greatest, best first.

    Computed on the CPU, whose bits they have: a row that lies on a GPU is waited for.
    """
    return naive.log_probabilities(logits.cpu(), count)
