"""What every primitive without hidden state means, on the value of one token of one sample.

Nothing here knows of batches, sequences or chunks.  A value is a tensor of its kind's shape: scalar
`[]`, heads `[H]`, vector `[d]`, headed `[H, d]`, matrix `[a, b]`.  `meaning(op)` gives a function
`f(arguments, kinds, options, parameters) -> value`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from nldsl.catalog.meanings import literal

Options = Mapping[str, Any]
Meaning = Callable[[Sequence[Tensor], Sequence[str], Options, Sequence[Tensor]], Tensor]


# --- meeting of kinds ------------------------------------------------------------------------


def align(values: Sequence[Tensor], kinds: Sequence[str]) -> list[Tensor]:
    """Views of `values` that broadcast the way the language says.

    One number per head meets `[H, d]` from the left; a vector `[n]` meets `[H, d]` per head if
    `n = H`, else along the channels.  In maps and rules a vector meets a matrix along its columns.
    """
    rank = max(v.dim() for v in values)
    if rank < 2:
        return list(values)
    full = next(v for v, k in zip(values, kinds, strict=True) if v.dim() == rank)
    headed = any(k == "headed" for v, k in zip(values, kinds, strict=True) if v.dim() == rank)
    return [v[:, None] if headed and v.dim() == 1 and v.shape[0] == full.shape[0] else v for v in values]


def _elementwise(function: Callable[..., Tensor]) -> Meaning:
    def apply(
        values: Sequence[Tensor], kinds: Sequence[str], options: Options, _: Sequence[Tensor]
    ) -> Tensor:
        return function(*align(values, kinds))

    return apply


def _value(function: Callable[..., Tensor]) -> Meaning:
    """A primitive without parameters: `function(*values, **options)`."""

    def apply(
        values: Sequence[Tensor], kinds: Sequence[str], options: Options, _: Sequence[Tensor]
    ) -> Tensor:
        return function(*values, **options)

    return apply


def _owning(function: Callable[..., Tensor]) -> Meaning:
    """A primitive with slow parameters: `function(*values, *parameters, **options)`."""

    def apply(
        values: Sequence[Tensor], kinds: Sequence[str], options: Options, own: Sequence[Tensor]
    ) -> Tensor:
        return function(*values, *own, **options)

    return apply


# --- elementwise -----------------------------------------------------------------------------


def _truth(compare: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Comparisons give 0 or 1 of the kind of number that was compared."""
    return lambda a, b: compare(a, b).to(a.dtype)


def gelu(x: Tensor) -> Tensor:
    """`x Phi(x)`, Phi the normal distribution function."""
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def gelu_slope(x: Tensor) -> Tensor:
    """`Phi(x) + x phi(x)`, phi the density."""
    return (1 + torch.erf(x / math.sqrt(2))) / 2 + x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def softplus(x: Tensor) -> Tensor:
    """`log(1 + e^x)`."""
    return torch.logaddexp(x, torch.zeros_like(x))


ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "lt": _truth(torch.lt),
    "le": _truth(torch.le),
    "gt": _truth(torch.gt),
    "ge": _truth(torch.ge),
    "eq": _truth(torch.eq),
    "ne": _truth(torch.ne),
    "where": lambda c, a, b: torch.where(c != 0, a, b),
    "neg": lambda a: -a,
    "abs": torch.abs,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "sigmoid": torch.sigmoid,
    "silu": lambda a: a * torch.sigmoid(a),
    "gelu": gelu,
    "tanh": torch.tanh,
    "relu": lambda a: torch.where(a > 0, a, torch.zeros_like(a)),
    "softplus": softplus,
    "logsigmoid": lambda a: -softplus(-a),
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "sign": torch.sign,
    "silu_pullback": lambda g, a: g * torch.sigmoid(a) * (1 + a * (1 - torch.sigmoid(a))),
    "gelu_pullback": lambda g, a: g * gelu_slope(a),
}


# --- reductions and norms, on the last axis --------------------------------------------------


def l2norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """`x / sqrt(sum x^2 + eps)`."""
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + eps)


def norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Root-mean-square norm: `weight x / sqrt(mean x^2 + eps)`; heads share the weight."""
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def layernorm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """`weight (x - mean) / sqrt(variance + eps) + bias`."""
    centred = x - x.mean(-1, keepdim=True)
    return weight * centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + eps) + bias


def softmax(x: Tensor) -> Tensor:
    """`e^x / sum e^x`."""
    e = torch.exp(x - x.detach().amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """`sum a b` over the last axis."""
    return (a * b).sum(-1)


def parts(x: Tensor, sizes: Sequence[int], index: int = 0) -> Tensor:
    """Piece `index` of the last axis cut into `sizes`."""
    start = sum(sizes[:index])
    return x[..., start : start + sizes[index]]


# --- layers ----------------------------------------------------------------------------------


def linear(x: Tensor, weight: Tensor, *offset: Tensor, **_: Any) -> Tensor:
    """`y = weight x (+ offset)` of the merged value, `weight [out, in]`."""
    y = weight @ x.reshape(-1)
    return y + offset[0] if offset else y


def readout(x: Tensor, weight: Tensor, bias: Tensor, **_: Any) -> Tensor:
    """One number per head: `sum_d x weight + bias`, `[H, d] -> [H]`."""
    return (x * weight).sum(-1) + bias


# --- matrices (maps and rules) ---------------------------------------------------------------


def orthogonalize(a: Tensor, iterations: int = 5) -> Tensor:
    """Newton-Schulz with the tuned quintic of Muon (Eq. 42-44; reading P19).

    `X <- 3.4445 X - 4.7750 (X X^T) X + 2.0315 (X X^T)^2 X` from `X = A / max(||A||, 1e-7)`, on the
    side that makes `X X^T` the smaller product.
    """
    tall = a.shape[-2] > a.shape[-1]
    x = a.T if tall else a
    x = x / torch.sqrt((x * x).sum().clamp(min=1e-14))
    for _ in range(iterations):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


def _eigen(a: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors, for which LAPACK finds none where a number is not finite: NaN."""
    if not torch.isfinite(a).all():
        return a[0] * torch.nan, a * torch.nan
    values, vectors = torch.linalg.eigh(a)
    return values, vectors


def inverse_root(a: Tensor, root: int, eps: float = 1e-12) -> Tensor:
    """`(A + eps I)^(-1/p)` of a symmetric matrix; negative eigenvalues count as zero."""
    values, vectors = _eigen((a + a.T) / 2)
    result: Tensor = vectors @ torch.diag((torch.clamp(values, min=0.0) + eps) ** (-1.0 / root)) @ vectors.T
    return result


def eigenbasis(a: Tensor) -> Tensor:
    """Eigenvectors of a symmetric matrix, largest eigenvalue first; the largest entry of each is positive."""
    columns = _eigen((a + a.T) / 2)[1].flip(1).unbind(1)
    signed = [c * (-1 if c[c.abs().argmax()] < 0 else 1) for c in columns]
    return torch.stack(signed, 1)


def orthonormal(a: Tensor) -> Tensor:
    """Gram and Schmidt, as QR with a positive diagonal of R."""
    q, r = torch.linalg.qr(a)
    result: Tensor = q @ torch.diag(torch.where(torch.diagonal(r) < 0, -1.0, 1.0).to(a.dtype))
    return result


def rownorm(a: Tensor, eps: float = 1e-6) -> Tensor:
    """Every row scaled to length one."""
    return a / torch.sqrt((a * a).sum(-1, keepdim=True) + eps)


def unbias(m: Tensor, beta: Tensor, step: Tensor) -> Tensor:
    """`m / (1 - beta^step)`: an average that started at zero, corrected."""
    return m / (1 - beta**step)


# --- the table -------------------------------------------------------------------------------

_VALUES: dict[str, Callable[..., Tensor]] = {
    "l2norm": l2norm,
    "softmax": softmax,
    "mean": lambda x: x.mean(-1),
    "sum": lambda x: x.sum(-1),
    "dot": dot,
    "split": lambda x, n: x.reshape(n, -1),  # a value already in n heads stays as it is
    "merge": lambda x: x.reshape(-1),
    "share": lambda x, n: torch.stack([x] * n),
    "headwise": lambda a, z: torch.stack([a @ one for one in torch.atleast_2d(z)]).reshape(*z.shape[:-1], -1),
    "kron": lambda a, b: torch.stack(
        [torch.outer(x, y).reshape(-1) for x, y in zip(torch.atleast_2d(a), torch.atleast_2d(b), strict=True)]
    ).reshape(*a.shape[:-1], -1),
    "concat": lambda *xs: torch.cat(xs, -1),
    "parts": parts,
    "values": lambda x: x,
    "detach": lambda x: x.detach(),
    "matmul": lambda a, b: a @ b,
    "transpose": lambda a: a.T,
    "outer": lambda a, b: a[..., :, None] * b[..., None, :],
    "like": torch.zeros_like,
    "orthogonalize": orthogonalize,
    "rownorm": rownorm,
    "inverse_root": inverse_root,
    "eigenbasis": eigenbasis,
    "orthonormal": orthonormal,
    "unbias": unbias,
    "expand_last": lambda x, like: x[..., None].expand(like.shape),
    "multiple_of": lambda x, of: torch.where(x % of == 0, torch.ones_like(x), torch.zeros_like(x)),
    "lookup": lambda token, table: table[token],
}

_OWNING: dict[str, Callable[..., Tensor]] = {
    "norm": norm,
    "layernorm": layernorm,
    "linear": linear,
    "embed": lambda token, weight, **_: weight[token],
    "head": lambda x, weight, **_: weight @ x.reshape(-1),
    "weight": lambda weight, **_: weight,
    "readout": readout,
}

MEANINGS: dict[str, Meaning] = {
    **{name: _elementwise(f) for name, f in ELEMENTWISE.items()},
    **{name: _value(f) for name, f in _VALUES.items()},
    **{name: _owning(f) for name, f in _OWNING.items()},
}


def meaning(op: str) -> Meaning:
    """The literal function of primitive `op`.

    Errors: `ValueError` for a name the language does not know.

    Example:
        >>> meaning("dot")([torch.ones(3), torch.ones(3)], ["vector", "vector"], {}, []).item()
        3.0
    """
    if op in MEANINGS:
        return MEANINGS[op]
    named = literal(op)
    if named is None:
        raise ValueError(f"the interpreter knows no primitive `{op}`")
    module, function = named[0].split(":")
    found = getattr(import_module(module), function)
    return _elementwise(found) if named[1] else _owning(found)
