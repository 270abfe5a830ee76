"""Weights of which every process holds a share: loops act on shares, matrix rules on all, and all agree."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import nldsl
from nldsl.runtime import native
from nldsl.runtime.rule_shards import as_weight

ROOT = Path(__file__).parents[2]
ROWS = """rule by_row(lr = 1e-2) {
  if rank(W) == 2 { n = expand_last(sum(g ** 2), g) } else { n = sum(g ** 2) }
  W = W - lr * g / (sqrt(n) + 1e-3)
}"""
NORM = """rule by_norm(lr = 1e-2) {
  if rank(W) == 2 { n = sum(sum(g ** 2)) } else { n = sum(g ** 2) }
  W = W - lr * g / (sqrt(n) + 1e-3)
}"""
RULES = ["adamw(lr = 0.01)", "muon(lr = 0.01)", "adafactor(lr = 0.01)", "shampoo(lr = 0.01)", ROWS, NORM]


@pytest.fixture
def alone() -> Iterator[Any]:
    """This process, as one that shares with nobody."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("form", ["eager", "auto", "compiled"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.partition("(")[0])
def test_shares_are_stepped_as_whole_weights_are(rule: str, form: str, alone: Any) -> None:
    """Large enough for a loop in C, whose addresses are those of shares."""
    plain = nn.Parameter(drawn(260, 260))
    shared = nn.Parameter(distribute_tensor(plain.detach().clone(), alone, [Shard(0)]))
    forms = ("eager" if rule is not RULES[0] else form), form
    if form == "compiled" and rule is NORM:
        with pytest.raises(nldsl.SpecError, match="NL0968.*holds a share of the weight"):
            nldsl.optimizer(rule, [shared], form=form).forms()
        return
    ours, theirs = (nldsl.optimizer(rule, [w], form=f) for w, f in zip((shared, plain), forms, strict=True))
    for step in range(3):
        plain.grad = drawn(260, 260, seed=step)
        shared.grad = distribute_tensor(plain.grad.clone(), alone, [Shard(0)])
        ours.step()
        theirs.step()
    assert isinstance(shared, DTensor)
    torch.testing.assert_close(shared.full_tensor(), plain.detach(), rtol=1e-9, atol=1e-9)
    for name, value in ours.state[shared].items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        torch.testing.assert_close(whole, theirs.state[plain][name], rtol=1e-9, atol=1e-9)


def test_a_share_beside_a_whole_weight_has_no_loop_of_whole_weights(alone: Any) -> None:
    """Both of one kernel: what was chosen for the first is not for the other."""
    plain, other = (nn.Parameter(drawn(260, 260)) for _ in range(2))
    shared = nn.Parameter(distribute_tensor(plain.detach().clone(), alone, [Shard(0)]))
    ready = nldsl.optimizer(NORM, [other, shared])
    theirs = nldsl.optimizer(NORM, [plain], form="eager")
    for step in range(2):
        other.grad = plain.grad = drawn(260, 260, seed=step)
        shared.grad = distribute_tensor(plain.grad.clone(), alone, [Shard(0)])
        ready.step()
        theirs.step()
    assert [ready.places[id(p)].loop is None for p in (other, shared)] == [not native.compiler(), True]
    for found in (other.detach(), shared.full_tensor()):  # type: ignore[operator]
        torch.testing.assert_close(found, plain.detach(), rtol=1e-9, atol=1e-9)


def test_a_gradient_is_divided_as_its_weight_is(alone: Any) -> None:
    weight, whole = (distribute_tensor(drawn(4, 3), alone, [how]) for how in (Shard(0), Replicate()))
    assert as_weight(weight, whole).placements == (Shard(0),)
    assert as_weight(weight, weight) is weight


def test_what_shares_cannot_have_is_refused(alone: Any) -> None:
    layer = nn.Linear(4, 3)
    fully_shard(layer, mesh=alone)
    with pytest.raises(nldsl.SpecError, match="NL0994.*hold shares of `weight`"):
        nldsl.optimizer("dgd(lr = 0.1)", layer)
    ready = nldsl.optimizer("adamw(lr = 0.1)", layer)
    layer(torch.ones(2, 4)).sum().backward()
    before = layer.weight.full_tensor().clone()
    ready.state[layer.weight]["m"] = torch.zeros(3, 4)
    with pytest.raises(nldsl.SpecError, match="NL0969.*`m` in the state of `weight` is not divided"):
        ready.step()
    assert torch.equal(layer.weight.full_tensor(), before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("original", [False, True])
def test_weights_that_were_made_one_vector(original: bool, alone: Any) -> None:
    """`FullyShardedDataParallel` of one process: its pieces have no shapes, so element-wise rules alone."""
    x, plain = drawn(5, 6), net()
    model = FullyShardedDataParallel(
        net(), use_orig_params=original, device_id=torch.device("cpu"), process_group=dist.group.WORLD
    )
    both = [nldsl.optimizer("adamw(lr = 0.1)", m.parameters()) for m in (model, plain)]
    for _ in range(3):
        for m, ready in zip((model, plain), both, strict=True):
            ready.zero_grad()
            m(x).square().sum().backward()
            ready.step()
    torch.testing.assert_close(model(x), plain(x), rtol=1e-10, atol=1e-10)
    for rule in ("muon(lr = 0.1)", "adafactor(lr = 0.1)", "dgd(lr = 0.1)", ROWS, NORM):
        with pytest.raises(nldsl.SpecError, match="NL0963.*piece of a vector"):
            nldsl.optimizer(rule, model)


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3)).double()


def trained(rule: str, rank: int | None, clip: float) -> list[Tensor]:
    """Six steps of `rule`, on half of the rows where there are two processes; one weight has three rows."""
    model = net()
    if rank is not None:
        fully_shard(model[0])
        fully_shard(model)
    weights = [p for p in model.parameters() if p.ndim == 2 or rule in (RULES[0], RULES[2], ROWS, NORM)]
    ready = nldsl.optimizer(rule, weights)
    for step in range(6):
        x = drawn(4, 6, seed=step)
        model.zero_grad()
        model(x if rank is None else x[2 * rank : 2 * rank + 2]).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        ready.step()
    return [p.full_tensor() if isinstance(p, DTensor) else p.detach() for p in model.parameters()]


def bad_gradients(rank: int) -> None:
    """One of two processes sees a gradient that is not finite; neither of them steps."""
    for policy in ("raise", "skip"):
        model = net()
        fully_shard(model)
        ready = nldsl.optimizer("adamw(lr = 0.1)", model, nonfinite=policy)
        model(drawn(2, 6)).sum().backward()
        if rank == 0:
            model[0].weight.grad.to_local().fill_(float("nan"))
        before = [p.to_local().clone() for p in model.parameters()]
        said = "of `0.weight`" if rank == 0 else "in another process"
        if policy == "raise":
            with pytest.raises(nldsl.SpecError, match=said):
                ready.step()
        else:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                ready.step()
            assert any(said in str(w.message) for w in seen)
        assert all(torch.equal(p.to_local(), b) for p, b in zip(model.parameters(), before, strict=True))


def zeroed(rank: int) -> None:
    """What is not finite in a share is taken as zero there, by a loop in C and by torch."""
    for form in ("compiled", "eager"):
        mesh = init_device_mesh("cpu", (2,))
        whole = nn.Parameter(drawn(5, 4))
        shared = nn.Parameter(distribute_tensor(whole.detach().clone(), mesh, [Shard(0)]))
        both = [nldsl.optimizer("adamw(lr = 0.1)", [w], form=form, nonfinite="zero") for w in (whole, shared)]
        for step in range(3):
            g = drawn(5, 4, seed=step)
            shared.grad = distribute_tensor(
                g.clone().index_fill_(0, torch.tensor(1), math.nan), mesh, [Shard(0)]
            )
            whole.grad = g.index_fill_(0, torch.tensor(1), 0.0)
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                for ready in both:
                    ready.step()
            assert any("is not finite" in str(w.message) for w in seen) or (rank, form) == (1, "compiled")
        assert isinstance(shared, DTensor)
        torch.testing.assert_close(shared.full_tensor(), whole.detach(), rtol=1e-12, atol=1e-12)


def two() -> None:
    """What each of two processes does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for rule in RULES:
        for ours, whole in zip(trained(rule, rank, 0.5), trained(rule, None, 0.5), strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-6, atol=1e-6)
    bad_gradients(rank)
    zeroed(rank)
    dist.destroy_process_group()
    print("done")


@pytest.mark.long
def test_two_processes_are_one() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "from tests.unit.test_optimizer_shards import two; two()"]
    running = [
        subprocess.Popen(
            command, env={**os.environ, **given, "RANK": str(rank)}, text=True, cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) for rank in range(2)
    ]  # fmt: skip
    try:
        said = [p.communicate(timeout=120)[0] for p in running]
    finally:
        for p in running:
            p.kill()
    assert all(p.returncode == 0 for p in running), "\n---\n".join(said)
    assert all(text.endswith("done\n") for text in said)
