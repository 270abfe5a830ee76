"""The readings of the paper that comments of the library refer to by number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """A place of the paper, what is printed there, what is done here, and what else one can write."""

    place: str
    found: str
    here: str
    otherwise: str = ""


READINGS = {
    1: Reading(
        "Eq. 90 and 93",
        "The index `C * ceil(t / C)`, taken literally, is the end of the current chunk: the future leaks.",
        "The last state of the *previous* chunk, for the gradient and for every read of key, value, rate "
        "and gate. In the language this is what a clock of C tokens means.",
    ),
    2: Reading(
        "Eq. 78 and 82 against 83 and 94",
        "The output is read from `M_t` in some places and from `M_{t-1}` in others.",
        "Program order decides: a read above the write sees the state before it, a read below it the state "
        "after it. Titans and linear attention read below, Hope reads above.",
    ),
    3: Reading(
        "Eq. 92",
        "The gradient of `-<M k, v>` is printed as `-eta v k^T`.",
        "The step adds: `+ eta v k^T`. With the erase of delta gradient descent that is the gated delta "
        "rule.",
    ),
    4: Reading(
        "Eq. 93 and the text before 86",
        "The loss `||M k - v||^2` has a gradient with a factor of 2, printed without it.",
        "`l2` is one half of the square. With `dgd` it erases twice: along a unit key the state is kept "
        "times `alpha - 2 eta`.",
        "`l2(scale = 1)`",
    ),
    5: Reading(
        "Eq. 88 with a perceptron as the memory",
        "`k k^T` has the wrong size for every weight but the first.",
        "Each weight erases along its own input `z`: `W (alpha I - eta z z^T) - eta g` (Eq. 57).",
    ),
    6: Reading(
        "the memories of rate and gate",
        "Their range and width are not given.",
        "One number per head, by a sigmoid whose range stands in the specification.",
        "gates per channel",
    ),
    7: Reading(
        "the query of Hope",
        "Sec. 8 calls it the only projection that does not adapt, yet Table 6 takes an adaptive one away.",
        "A plain linear projection.",
        "`hope_with_inner_query`",
    ),
    8: Reading(
        "Table 6, the row without momentum",
        "Eq. 88 has no momentum that could be left out.",
        "None.",
    ),
    9: Reading(
        "Eq. 71",
        "The sum has C + 1 terms, and it is open whether it is a sum or a mean and which parameters stand "
        "inside.",
        "Exactly C tokens, the gradient at the parameters that this chunk was computed with, a sum.",
    ),
    10: Reading(
        "Eq. 70 and 71",
        "No residual is printed, and it is open whose error the memory system learns from.",
        "The residual is written out; the error is the task's own, by the chain rule through the later "
        "blocks.",
        "an objective of the memory's own",
    ),
    11: Reading(
        "Eq. 72 to 74",
        "Three ways of joining memories of several clocks.",
        "All three can be written: nested by `init`, one after the other, and side by side.",
    ),
    12: Reading(
        "Eq. 75 and Algorithm 1",
        "Opposite signs, no decay, and what one chunk gathers is used in the next.",
        "Algorithm 1 to the letter is `m3`.",
        "`m3_ema`, with averages that forget and are corrected for their start",
    ),
    13: Reading(
        "Eq. 56, 57 and Appendix C",
        "`eta / (1 + eta)` holds for unit keys only; the appendix writes eta for its inverse.",
        '`rate = "proximal"` is `eta / (1 + eta ||x||^2)`, the exact solution of Eq. 56.',
        '`"raw"`, `"normalised"`',
    ),
    14: Reading(
        "Eq. 48 and 49",
        "The rate is missing on the erase term, and descent on the printed loss would ascend.",
        "`m' = m (beta I - lr g^T g) - lr g` and `W' = W + m'`, for matrices, never flattened.",
    ),
    15: Reading(
        "Eq. 50 to 52",
        "The target is `1` or `I`, and `u` is not defined for matrices.",
        "`u` is the gradient, its rows the samples; the network is trained on its own objective, and `W' = "
        "W + m(u)`.",
    ),
    16: Reading(
        "Eq. 65",
        "`(I - eta k k^T) M` for a memory of values by keys.",
        "`M (I - eta k k^T)`.",
    ),
    17: Reading(
        "Eq. 66",
        "`v (phi(k)^T - M^T v)` mixes rows and columns.",
        "`eta v (phi(k) - M^T v)^T`.",
    ),
    18: Reading(
        "Eq. 68",
        "The sign of the gradient, and `M_t` on both sides.",
        "The gradient is taken at `M_{t-1}`.",
    ),
    19: Reading(
        "Eq. 41 and 44",
        "One step of the printed iteration does not converge.",
        "Newton-Schulz with the tuned quintic coefficients, five steps.",
    ),
    20: Reading(
        "Eq. 19 and 20",
        "The sign of the gradient inside the minimum.",
        "Derived, not copied.",
    ),
    21: Reading(
        "Sec. 7.3",
        "A continuum memory system that starts from the perceptrons of a trained model.",
        "With an inner rate of 0 the outputs are those of the model it starts from.",
    ),
    22: Reading(
        "Eq. 88 to 90, stability",
        "With queries and keys of unit length, as the text says, the recurrence of Eq. 93 diverges; with "
        "unit values and a rate of at most 1 / C it is bounded and nearly does nothing.",
        "`hope`: the inner product (Eq. 92), a target of unit length, the rate divided by `||z||^2`, and "
        "retention toward the learned start, so that decay and erase act on `M - M_0`.",
        "`hope_l2` (Eq. 93 behind the same guards), `hope_literal` (nothing added; it diverges, and says so)",
    ),
}
