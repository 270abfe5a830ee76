"""The C kernels of native lanes against float64 of torch and numpy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from nldsl.native.kernels import kernel_text
from nldsl.runtime import native
from nldsl.runtime.triangular import unit_lower_inverse

pytestmark = pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")
TYPES = (torch.float32, torch.float64)
FUNCTIONS = (
    "exp expm1 log log1p sigmoid silu logsigmoid softplus tanh erf gelu_erf gelu_tanh rsqrt sqrt sin cos abs"
).split()
CALLS = """
int step(long tensors, const long *s, real **x, const double *d, int threads) {
  (void)tensors; (void)threads;
  switch (s[0]) {
    case 0:
      nl_product(s[1], s[2], s[3], x[0], s[4], s[5], x[1], s[6], s[7], x[2], s[8], d[0], d[1], x[3]);
      return 0;
    case 1: nl_transpose(s[1], s[2], x[0], s[3], x[1], s[4]); return 0;
    case 2: nl_unit_lower_inverse(s[1], x[0], s[2], x[1], s[3], x[2]); return 0;
    case 3: nl_solve_unit_lower(s[1], s[2], x[0], s[3], x[1], s[4]); return 0;
    case 4: *x[1] = nl_sum(s[1], x[0], s[2]); return 0;
    case 5: *x[2] = nl_dot(s[1], x[0], s[2], x[1], s[3]); return 0;
    case 6: *x[1] = nl_max(s[1], x[0], s[2]); return 0;
    case 7: for (long i = 0; i < s[1]; i++) x[2][i] = nl_pow(x[0][i], x[1][i]); return 0;
    POINTS
  }
  return 1;
}
"""


def calls(kernel: str) -> str:
    points = (
        f"case {i}: for (long i = 0; i < s[1]; i++) x[1][i] = nl_{name}(x[0][i]); return 0;"
        for i, name in enumerate(FUNCTIONS, 10)
        if kernel in ("", name)
    )
    return CALLS.replace("POINTS", "\n    ".join(points))


@cache
def library(dtype: torch.dtype, fault: tuple[str, str] | None = None, kernel: str = "") -> native.Step:
    """All kernels, or with a fault put in, only the functions that it is looked for in."""
    text = kernel_text()
    if fault:
        assert fault[0] in text
        text = text.replace(*fault, 1)
    step = native.compiled(text + calls(kernel), native.REAL[dtype])
    assert step is not None
    return step


def call(step: native.Step, sizes: list[int], *tensors: Tensor, numbers: tuple[float, ...] = ()) -> None:
    given = (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))
    code = step(
        len(tensors),
        (ctypes.c_long * len(sizes))(*sizes),
        given,
        (ctypes.c_double * max(1, len(numbers)))(*numbers),
        1,
    )
    assert code == 0


def laid(x: Tensor, how: str) -> Tensor:
    """The same matrix with its rows contiguous, its columns contiguous, or neither."""
    if how == "rows":
        return torch.nn.functional.pad(x, (0, 3))[:, : x.shape[1]]
    if how == "columns":
        return laid(x.mT, "rows").mT
    return x.repeat_interleave(2, 1).contiguous()[:, ::2]


SHAPES = [
    *((1, 1, 1), (1, 64, 64), (64, 1, 64), (2, 3, 5), (5, 2, 40), (3, 33, 70), (6, 4, 1), (7, 5, 19)),
    *((16, 16, 16), (13, 48, 32), (12, 112, 9), (64, 64, 64), (65, 63, 17), (20, 23, 100), (9, 10, 0)),
    *(
        (31, 12, 4),
        (8, 127, 33),
        (250, 40, 3),
        (17, 256, 64),
        (67, 1, 9),
        (4, 9, 128),
        (11, 80, 2),
        (1, 17, 1),
    ),
]


def product(step: native.Step, a: Tensor, b: Tensor, start: Tensor, alpha: float, beta: float) -> Tensor:
    (m, k), n = a.shape, b.shape[1]
    wide = torch.full((m, n + 5), torch.nan, dtype=a.dtype)
    wide[:, :n] = start
    room = torch.full(((k + 16) * (n + 64),), torch.nan, dtype=a.dtype)
    call(step, [0, m, n, k, *a.stride(), *b.stride(), n + 5], a, b, wide, room, numbers=(alpha, beta))
    assert wide[:, n:].isnan().all()
    return wide[:, :n]


def product_errors(step: native.Step, dtype: torch.dtype, shape: tuple[int, int, int]) -> float:
    """The largest error over all layouts and scales, in units of what rounding can do."""
    m, n, k = shape
    draw = torch.Generator().manual_seed(m + 300 * n + 7 * k)
    worst = 0.0
    for a_how in ("rows", "columns", "neither"):
        for b_how in ("rows", "columns", "neither"):
            a, b, c = (
                torch.randn(s, generator=draw, dtype=torch.float64).to(dtype)
                for s in ((m, k), (k, n), (m, n))
            )
            a, b = laid(a, a_how), laid(b, b_how)
            for alpha, beta in ((1.0, 0.0), (0.5, 1.0), (-1.0, 0.25)):
                start = c if beta else torch.full_like(c, torch.nan)
                made = product(step, a, b, start, alpha, beta)
                wanted = alpha * (a.double() @ b.double()) + (beta * c.double() if beta else 0)
                size = abs(alpha) * (a.double().abs() @ b.double().abs()) + abs(beta) * c.double().abs()
                error = (made.double() - wanted).abs() / ((size + 1e-300) * torch.finfo(dtype).eps)
                worst = max(worst, error.nan_to_num(torch.inf).max().item())
    return worst


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_product(dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    assert product_errors(library(dtype), dtype, shape) < 4 + shape[2] ** 0.5


@pytest.mark.parametrize("shape", [(64, 70, 16), (9, 5, 30)])
def test_product_of_what_is_broadcast(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a, b = torch.randn(1, k).expand(m, k), torch.randn(k, 1).expand(k, n)
    made = product(library(torch.float32), a, b, torch.full((m, n), torch.nan), 1.0, 0.0)
    torch.testing.assert_close(made, a @ b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 5), (4, 4), (16, 16), (17, 40), (64, 64), (7, 100), (33, 8), (0, 4)]
)
def test_transpose(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    m, n = shape
    given = torch.randn(m, n + 2, dtype=dtype)
    made = torch.full((n, m + 3), torch.nan, dtype=dtype)
    call(library(dtype), [1, m, n, n + 2, m + 3], given, made)
    assert torch.equal(made[:, :m], given[:, :n].mT)
    assert made[:, m:].isnan().all()


def lower(size: int, dtype: torch.dtype, hard: bool) -> Tensor:
    """Strictly lower numbers with junk on and above the diagonal."""
    draw = torch.Generator().manual_seed(size)
    scale = 1.9 if hard else size**-0.5
    strict = torch.ones(size, size) if hard else torch.randn(size, size, generator=draw)
    return (scale * strict.tril(-1) + torch.full((size, size), 1e30).triu()).to(dtype)


def exact_inverse(given: Tensor) -> Tensor:
    eye = torch.eye(given.shape[-1], dtype=torch.float64)
    return torch.linalg.solve_triangular(given.double().tril(-1) + eye, eye, upper=False, unitriangular=True)


def relative(made: Tensor, wanted: Tensor) -> float:
    return ((made - wanted).abs().max() / wanted.abs().max() / torch.finfo(made.dtype).eps).item()


def inverse_error(step: native.Step, size: int, dtype: torch.dtype, hard: bool) -> float:
    given = lower(size, dtype, hard)
    out = torch.full((size, size + 3), torch.nan, dtype=dtype)
    call(step, [2, size, size, size + 3], given, out, torch.empty(4 * size * size + 4096, dtype=dtype))
    assert out[:, size:].isnan().all() and not out[:, :size].triu(1).any()
    return relative(out[:, :size], exact_inverse(given))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [1, 2, 7, 15, 16, 17, 31, 32, 33, 48, 64, 100, 128, 129, 256])
def test_inverse(dtype: torch.dtype, size: int) -> None:
    assert inverse_error(library(dtype), size, dtype, hard=False) < 20
    # Where blocks are joined, what repeats loses digits, here no more than in torch's form of it.
    given = lower(size, dtype, hard=True)
    by_torch = relative(unit_lower_inverse(given[None].tril(-1))[0], exact_inverse(given))
    assert inverse_error(library(dtype), size, dtype, hard=True) < max(20, by_torch)


def test_inverse_of_nothing() -> None:
    call(library(torch.float32), [2, 0, 0, 0], *torch.empty(3, 1))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [1, 5, 16, 17, 50, 64, 128])
@pytest.mark.parametrize("columns", [1, 3, 4, 20, 64])
def test_solve(dtype: torch.dtype, size: int, columns: int) -> None:
    given = lower(size, dtype, hard=False)
    x = torch.randn(size, columns + 2, dtype=dtype)
    start = x.clone()
    call(library(dtype), [3, size, columns, size, columns + 2], given, x)
    system = given.double().tril(-1) + torch.eye(size, dtype=torch.float64)
    wanted = torch.linalg.solve_triangular(system, start[:, :columns].double(), upper=False)
    error = (x[:, :columns] - wanted).abs().max() / wanted.abs().max() / torch.finfo(dtype).eps
    assert error < 20
    assert torch.equal(x[:, columns:], start[:, columns:])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("count", [0, 1, 3, 16, 63, 64, 65, 200, 1001])
@pytest.mark.parametrize("stride", [1, 3])
def test_reductions(dtype: torch.dtype, count: int, stride: int) -> None:
    draw = torch.Generator().manual_seed(count)
    x, y = torch.randn(2, count * stride + 1, generator=draw, dtype=torch.float64).to(dtype)
    made = torch.empty(3, dtype=dtype)
    call(library(dtype), [4, count, stride], x, made)
    call(library(dtype), [5, count, stride, 1], x, y, made[1:])
    call(library(dtype), [6, count, stride], x, made[2:])
    own, other = x[: count * stride : stride].double(), y[:count].double()
    tolerance = 4 * torch.finfo(dtype).eps
    assert abs(made[0] - own.sum()) <= tolerance * own.abs().sum()
    assert abs(made[1] - own @ other) <= tolerance * (own * other).abs().sum()
    assert made[2] == (own.max() if count else -torch.inf)
    if count:
        x[(count - 1) // 2 * stride] = torch.nan
        call(library(dtype), [6, count, stride], x, made)
        assert made[0].isnan()


Exact = Callable[[Tensor], np.ndarray]
F = torch.nn.functional
LONG = np.longdouble


def by_numpy(function: Callable[[np.ndarray], np.ndarray]) -> Exact:
    """In the widest type numpy has here."""
    return lambda x: function(x.double().numpy().astype(LONG))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# name: exact result, least and largest magnitude of arguments, signs, last places allowed (float, double).
ACCURATE: dict[str, tuple[Exact, float, float, str, float, float]] = {
    "exp": (by_numpy(np.exp), 1e-30, 87, "+-", 1.1, 1.1),
    "expm1": (by_numpy(np.expm1), 1e-30, 88, "+-", 2, 2.5),
    "log": (by_numpy(np.log), 1e-37, 1e38, "+", 1, 1),
    "log1p": (by_numpy(np.log1p), 1e-37, 1e38, "+", 1, 1),
    "sigmoid": (by_numpy(lambda x: 1 / (1 + np.exp(-x))), 1e-30, 87, "+-", 2, 3),
    "silu": (by_numpy(lambda x: x / (1 + np.exp(-x))), 1e-30, 87, "+-", 2.25, 3),
    "logsigmoid": (by_numpy(lambda x: -softplus(-x)), 1e-30, 87, "+-", 2, 2.5),
    "softplus": (by_numpy(softplus), 1e-30, 87, "+-", 2, 2.5),
    "tanh": (by_numpy(np.tanh), 1e-30, 50, "+-", 2, 4),
    "rsqrt": (by_numpy(lambda x: 1 / np.sqrt(x)), 1e-37, 1e38, "+", 1.5, 1.5),
    "sqrt": (by_numpy(np.sqrt), 1e-37, 1e38, "+", 0.501, 0.501),
    "sin": (by_numpy(np.sin), 1e-30, 1e4, "+-", 1, 1),
    "cos": (by_numpy(np.cos), 1e-30, 1e4, "+-", 1, 1),
    "abs": (by_numpy(np.abs), 1e-30, 1e38, "+-", 0, 0),
}


def applied(step: native.Step, name: str, x: Tensor) -> Tensor:
    made = torch.empty_like(x)
    call(step, [10 + FUNCTIONS.index(name), x.numel()], x, made)
    return made


def last_places(step: native.Step, name: str, dtype: torch.dtype, count: int = 40000) -> float:
    exact, least, most, signs, *_ = ACCURATE[name]
    draw = torch.Generator().manual_seed(len(name))
    uniform = torch.rand(count, generator=draw, dtype=torch.float64)
    size = torch.cat([least * (most / least) ** uniform, most * uniform, min(2, most) * uniform])
    x = (torch.cat([size, -size]) if signs == "+-" else size).to(dtype)
    return in_last_places(applied(step, name, x).numpy(), np.asarray(exact(x)))


def in_last_places(made: np.ndarray, wanted: np.ndarray) -> float:
    kind = made.dtype
    place = np.maximum(np.spacing(np.abs(wanted).astype(kind)), np.spacing(np.finfo(kind).tiny))
    error = np.abs(made.astype(LONG) - wanted) / place.astype(LONG)
    return float(np.nan_to_num(error, nan=np.inf).max())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ACCURATE)
def test_last_places(dtype: torch.dtype, name: str) -> None:
    allowed = ACCURATE[name][4 if dtype == torch.float32 else 5]
    assert last_places(library(dtype), name, dtype) <= allowed


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1.0), (torch.float64, 2.0)])
def test_last_places_of_erf(dtype: torch.dtype, allowed: float) -> None:
    x = torch.cat([torch.linspace(-6, 6, 100001), torch.logspace(-30, 0, 5000)]).to(dtype)
    assert (
        in_last_places(applied(library(dtype), "erf", x).numpy(), torch.erf(x.double()).numpy().astype(LONG))
        <= allowed
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["gelu_erf", "gelu_tanh"])
def test_gelu(dtype: torch.dtype, name: str) -> None:
    x = torch.linspace(-12, 12, 50001, dtype=torch.float64).to(dtype)
    wanted = F.gelu(x.double(), approximate="tanh" if name == "gelu_tanh" else "none")
    error = (applied(library(dtype), name, x).double() - wanted).abs() / (x.double().abs() + 1e-30)
    assert error.max() <= 3 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n not in ("silu", "gelu_erf", "gelu_tanh")])
def test_at_the_ends(dtype: torch.dtype, name: str) -> None:
    """Infinities, no number, zeros, and arguments beyond what a result can hold, as torch has them."""
    at = {"rsqrt": torch.rsqrt, "softplus": F.softplus, "logsigmoid": F.logsigmoid}
    exact = at.get(name) or getattr(torch, name)
    inf, nan, tiny = torch.inf, torch.nan, torch.finfo(dtype).tiny
    x = torch.tensor([inf, -inf, nan, 0.0, -0.0, 1e4, -1e4, tiny, 1.0, -1.0, -2.0, tiny / 4] * 3, dtype=dtype)
    torch.testing.assert_close(
        applied(library(dtype), name, x), exact(x), rtol=1e-6, atol=tiny, equal_nan=True
    )


@pytest.mark.parametrize("dtype", TYPES)
def test_power(dtype: torch.dtype) -> None:
    x, y = torch.rand(1000, dtype=dtype) * 9, torch.randn(1000, dtype=dtype) * 5
    made = torch.empty_like(x)
    call(library(dtype), [7, 1000], x, y, made)
    torch.testing.assert_close(made, x**y)


FAULTS: dict[str, tuple[tuple[str, str], str, tuple[int, int, int]]] = {
    "columns kept": (("| ((VEC##_bits)*c & ~late)", ""), "product", (7, 21, 9)),
    "rows left over": (("if (m < M) NL_TILE", "if (m + 1 < M) NL_TILE"), "product", (7, 64, 9)),
    "beta": (("*c * beta + sum", "*c + sum"), "product", (16, 16, 16)),
    "transposed": (("x[r + WIDTH / 2], 0)", "x[r + WIDTH / 2], 1)"), "product", (64, 64, 64)),
    "joined": (("middle, top, 1, below, lo, -1", "middle, top, 1, below, lo, 1"), "inverse", (32, 0, 0)),
    "coefficient": (("0x1.5554fep-5f", "0x1.5544fep-5f"), "exp", (0, 0, 0)),
    "lost": (("lost / u", "0"), "log1p", (0, 0, 0)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(fault: str) -> None:
    change, kernel, shape = FAULTS[fault]
    step = library(torch.float32, change, kernel)
    if kernel == "product":
        assert product_errors(step, torch.float32, shape) > 20
    elif kernel == "inverse":
        assert inverse_error(step, shape[0], torch.float32, hard=False) > 20
    else:
        assert last_places(step, kernel, torch.float32) > ACCURATE[kernel][4]
