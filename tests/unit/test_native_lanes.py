"""Functions compiled to C, lane by lane, against torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.native import lanes as module
from nldsl.native.lanes import Lanes
from nldsl.runtime import native
from nldsl.runtime.triangular import unit_lower_inverse

pytestmark = pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")
TYPES = {torch.float64: 1e-12, torch.float32: 1e-5}


def put_in(x: Tensor, y: Tensor) -> Tensor:
    made = x.new_zeros(*x.shape[:-1], 9)
    made[..., 1:6] = x
    made[..., 3:4] = y[..., :1]
    return made


def padded_inverse(x: Tensor) -> Tensor:
    return unit_lower_inverse(F.pad(x, (1, 2, 1, 2)).flatten(0, -3)).view(*x.shape[:-2], x.shape[-2] + 3, -1)


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sums": lambda x, y: x.sum(-1, keepdim=True) + y.sum(-2, keepdim=True) * x.sum((-1, -2), keepdim=True),
    "largest": lambda x, y: x.amax(-1, keepdim=True) - y.amin(-2, keepdim=True),
    "means": lambda x, y: x.mean(-1, keepdim=True) * y.mean((-1, -2), keepdim=True),
    "norm": lambda x, y: F.normalize(x, dim=-1) + torch.linalg.vector_norm(y, dim=-1, keepdim=True),
    "layer norm": lambda x, y: F.layer_norm(x, x.shape[-1:]) * y,
    "softmax": lambda x, y: torch.softmax(x, -1) * torch.log_softmax(y, -2),
    "silu": lambda x, y: F.silu(x) * torch.sigmoid(y) + F.logsigmoid(3 * x) - F.softplus(y),
    "gelu": lambda x, y: F.gelu(x) + F.gelu(y, approximate="tanh"),
    "exp": lambda x, y: torch.exp(x) * torch.log(y.abs() + 0.1) + torch.expm1(y) / torch.log1p(x.abs() + 1),
    "powers": lambda x, y: x**2 + y**3 + (x.abs() + 0.1) ** 0.5 + (y.abs() + 0.1) ** -1.5 + 2.0 * x.square(),
    "trigonometry": lambda x, y: torch.sin(x) * torch.cos(y) + torch.tanh(x) + torch.erf(y),
    "sum of exponentials": lambda x, y: (
        torch.logaddexp(x, y) + torch.logaddexp(x, x) + torch.logaddexp(9 * x, y)
    ),
    "bounds": lambda x, y: x.clamp(-0.5, 0.5) + y.clamp_min(0.1) + torch.maximum(x, y) * torch.minimum(x, y),
    "choices": lambda x, y: (
        torch.where(x > y, x, 2.0) + y.masked_fill((x < 0) | (y >= 1), -1.0) + x.sign() * y.sgn()
    ),
    "relu": lambda x, y: F.relu(x) + F.leaky_relu(y, 0.1) + F.elu(x) + y.abs(),
    "lerp": lambda x, y: x.lerp(y, 0.3) + x.addcmul(y, y, value=0.5) - x.addcdiv(y, y * y + 1),
    "transposed": lambda x, y: (x.mT + y.mT * 2).mT + x.flip(-1) + y.flip(-2),
    "triangles": lambda x, y: x.tril() + y.triu(1) + x.tril(-2),
    "counts": lambda x, y: x * torch.arange(5) + torch.eye(5, dtype=x.dtype) * y,
    "running sums": lambda x, y: x.cumsum(-1) + y.cumsum(-2) + x.double().cumsum(-1).exp().to(x.dtype),
    "pieces": lambda x, y: torch.cat((x, y[..., 1:], x[..., :2]), -1),
    "stacks": lambda x, y: torch.stack((x, y, x + y), -3).sum(-3) + torch.stack((x, y), -1)[..., 1],
    "split": lambda x, y: sum(
        a * b for a, b in zip(x.split(2, -1)[:2], y.split([2, 2, 1], -1)[:2], strict=True)
    ),
    "unbound": lambda x, y: torch.stack([a * n for n, a in enumerate(x.unbind(-1))], -1) + y,
    "put in": put_in,
    "padded": lambda x, y: F.pad(x, (1, 2)) * F.pad(y, (0, 3), value=2.0) + F.pad(x[..., :4], (3, 1)),
    "diagonals": lambda x, y: x.diagonal(dim1=-2, dim2=-1) + y.diagonal(1, -2, -1).sum(-1, keepdim=True),
    "products": lambda x, y: x @ y + x.mT @ y - x @ y.mT + (x.mT @ y.mT) * 0.5,
    "added products": lambda x, y: x + x[:, 0].baddbmm(x[:, 1], y[:, 0].mT, beta=0.5, alpha=-1.0)[:, None],
    "broadcast products": lambda x, y: x[:, :1] @ y + (x[:, :, :1] @ y)[..., :1, :] + x @ y[..., :1],
    "inverse": lambda x, y: padded_inverse(x) @ F.pad(y, (0, 0, 1, 2)),
    "reshaped": lambda x, y: (x.mT.reshape(x.shape[0], -1) * 2).view_as(x) + y.flatten(1).view_as(x),
    "in place": lambda x, y: (x * 1).mul_(y).add_(x).sub_(1).neg_(),
    "constants": lambda x, y: x * torch.tensor(3.0, dtype=x.dtype) + torch.full_like(y, 0.25) + torch.ones(5),
    "infinite": lambda x, y: torch.where(x > 0, x, float("-inf")).amax(-1, keepdim=True) + y,
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_every_kind(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    function = FUNCTIONS[name]
    x, y = (torch.randn(4, 3, 5, 5, dtype=dtype) for _ in range(2))
    compiled = Lanes(lambda *given: (function(*given),), axes=1)
    compiled(x, y)
    assert compiled.compiled == 1, compiled.reasons
    given = torch.randn_like(x), torch.randn_like(y)
    (found,), other = compiled(*given), function(*given)
    assert found is not None
    assert found.shape == other.shape
    torch.testing.assert_close(found, other.to(found.dtype), rtol=10 * TYPES[dtype], atol=TYPES[dtype])


def test_layouts_shared_arguments_and_results_that_are_none() -> None:
    torch.manual_seed(0)

    def function(x: Tensor, none: Tensor | None, w: Tensor) -> tuple[Tensor | None, ...]:
        assert none is None
        y = x @ w
        return y, None, x, y, y.mT, w + x[..., :1, :1]

    x = torch.randn(6, 3, 2, 4, dtype=torch.float64).transpose(0, 2).transpose(1, 3)
    w = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    compiled = Lanes(function, axes=2)
    for _ in range(2):
        found, other = compiled(x, None, w), function(x, None, w)
        assert compiled.compiled == 1, compiled.reasons
        for own, same in zip(found, other, strict=True):
            assert (own is None) == (same is None)
            if own is not None and same is not None:
                torch.testing.assert_close(own, same.expand_as(own), rtol=1e-12, atol=1e-12)


def test_threads_share_the_lanes() -> None:
    x = torch.randn(33, 7, 7, dtype=torch.float64)
    compiled = Lanes(lambda x: ((x @ x).exp(),), axes=1)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            for _ in range(2):
                (found,) = compiled(x)
                assert found is not None
                torch.testing.assert_close(found, (x @ x).exp(), rtol=1e-12, atol=1e-12)
    finally:
        torch.set_num_threads(before)


def test_what_has_no_form_stays_with_torch_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 4, 4)
    sorted_ = Lanes(lambda x: (x.sort(-1).values,), axes=1)
    assert torch.equal(sorted_(x)[0], x.sort(-1).values)  # type: ignore[arg-type]
    assert sorted_.compiled == 0
    assert "aten.sort" in next(iter(sorted_.reasons.values()))
    half = Lanes(lambda x: (x + 1,), axes=1)
    assert half(x.bfloat16())[0].dtype == torch.bfloat16  # type: ignore[union-attr]
    assert "float32" in next(iter(half.reasons.values()))
    mixing = Lanes(lambda x: (x - x.mean(0, keepdim=True),), axes=1)
    assert torch.equal(mixing(x)[0], x - x.mean(0, keepdim=True))  # type: ignore[arg-type]
    assert "differs" in next(iter(mixing.reasons.values()))
    monkeypatch.setattr(module, "compiler", lambda: "")
    alone = Lanes(lambda x: (x + 1,), axes=1)
    assert torch.equal(alone(x)[0], x + 1)  # type: ignore[arg-type]
    assert "compiler" in next(iter(alone.reasons.values()))


def test_what_a_first_call_writes_over_is_written_once() -> None:
    compiled = Lanes(lambda x, y: (y.add_(x) * 2,), axes=1)
    x, y = torch.ones(2, 3), torch.ones(2, 3)
    assert compiled(x, y)[0].tolist() == [[4.0] * 3] * 2  # type: ignore[union-attr]


def test_any_number_of_lanes_is_the_same_code() -> None:
    compiled = Lanes(lambda x, w: (x @ w,), axes=1)
    for lanes in (0, 1, 3, 8):
        x, w = torch.randn(lanes, 3, 3), torch.randn(1 if lanes < 8 else 8, 3, 3)
        (found,) = compiled(x, w)
        assert found is not None
        torch.testing.assert_close(found, x @ w)
    assert compiled.compiled == 1
    with pytest.raises(ValueError, match="lanes"):
        compiled(torch.ones(2, 3, 3), torch.ones(3, 3, 3))


def test_threads_that_come_and_go_leave_their_rooms() -> None:
    """Threads of a server: what one worked in, the next one takes."""
    x = torch.randn(1, 700, 700)
    compiled = Lanes(lambda x: ((x @ x) @ x,), axes=1)
    compiled(x)

    def come_and_go() -> None:
        for _ in range(20):
            thread = threading.Thread(target=compiled, args=(x,))
            thread.start()
            thread.join()

    # The C library has a heap for every thread at first.
    come_and_go()
    before = _resident()
    come_and_go()
    assert _resident() - before < 8 * x.numel() * x.element_size()


def _resident() -> int:
    """Bytes of this process in memory."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("this system does not say how much memory a process has")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_threads_compile_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread gets what it asked for, whatever the others compile meanwhile."""
    monkeypatch.setattr(native, "FLAGS", [[*"-O0 -shared -fPIC -lm".split()]])
    x = torch.ones(2, 3)
    functions = [Lanes(lambda x, n=n: (x * (n + 0.5),), axes=1) for n in range(6)]
    with ThreadPoolExecutor(len(functions)) as pool:
        list(pool.map(lambda f: f(x), functions))
    for n, function in enumerate(functions):
        assert function.compiled == 1, function.reasons
        assert torch.equal(function(x)[0], x * (n + 0.5))  # type: ignore[arg-type]


def test_torch_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NLDSL_CACHE_DIR", "off")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    x = torch.randn(2, 3)
    function = Lanes(lambda x: (x * 0.7215,), axes=1)
    assert torch.equal(function(x)[0], x * 0.7215)  # type: ignore[arg-type]
    assert "may not be run here" in next(iter(function.reasons.values()))
    native.built.cache_clear()


def test_a_forked_process_takes_nothing_away() -> None:
    """What a child of `fork` cleans up when it ends is its own."""
    child = (
        "import os, sys, torch\n"
        "from nldsl.native.lanes import Lanes\n"
        "x = torch.ones(2, 3)\n"
        "Lanes(lambda x: (x * 0.31,), axes=1)(x)\n"
        "if os.fork() == 0: sys.exit(0)\n"
        "os.wait()\n"
        "later = Lanes(lambda x: (x * 0.32,), axes=1)\n"
        "later(x)\n"
        "print(later.compiled)\n"
    )
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr
