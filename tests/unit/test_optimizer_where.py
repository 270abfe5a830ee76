"""What a step asks in few calls: where everything lies, and whether a group says what it said."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import nldsl
from nldsl.diagnostics import SpecError
from nldsl.runtime import native, rule_where
from nldsl.runtime.rule_optimizer import RuleOptimizer
from nldsl.runtime.rule_where import Where

needs_compiler = pytest.mark.skipif(not native.compiler(), reason="no C compiler")


def three_by_four() -> Tensor:
    """The first half of what there is memory for."""
    return torch.arange(24.0)[:12].view(3, 4)


def shorter(x: Tensor) -> None:
    x.data = x.data[:2]


def turned(x: Tensor) -> None:
    x.data = x.data.reshape(4, 3).t()


def moved(x: Tensor) -> None:
    x.data = x.data.clone()


def read_as_other_numbers(x: Tensor) -> None:
    x.data = x.data.view(torch.int32)


def half_as_many(x: Tensor) -> None:
    """As many bytes at the same place: half as many numbers."""
    x.data = x.data.view(torch.float64)


def twice_as_wide(x: Tensor) -> None:
    """As many numbers at the same place."""
    x.data = torch.zeros(0, dtype=torch.float64).set_(x.untyped_storage(), 0, (3, 4), (4, 1))


def spread(x: Tensor) -> None:
    x.data = x.data[:, :1].expand(3, 4)


def of_another_shape(x: Tensor) -> None:
    x.data = x.data.view(4, 3)


def with_another_axis(x: Tensor) -> None:
    x.data = x.data.view(3, 4, 1)


def with_an_axis_less(x: Tensor) -> None:
    x.data = x.data.view(12)[:3]


def without_memory(x: Tensor) -> None:
    x.untyped_storage().resize_(0)


CHANGES = [shorter, turned, moved, read_as_other_numbers, half_as_many, twice_as_wide, spread, without_memory]
CHANGES += [of_another_shape, with_another_axis, with_an_axis_less]


@needs_compiler
@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_changes_is_seen(change: Callable[[Tensor], None], at: int) -> None:
    tensors = [three_by_four() for _ in range(3)]
    where = Where(tensors)
    where.fetch()
    assert where.stay() and where.stay()
    change(tensors[at])
    assert not where.stay()


@needs_compiler
def test_what_stays_is_where_it_was() -> None:
    """A view, a number, nothing at all, a row that is a column, a parameter."""
    row = torch.arange(4.0).reshape(4, 1).t()
    some = [torch.zeros(9)[2:5], torch.zeros(()), torch.zeros(0, 3), row, nn.Parameter(torch.zeros(2, 3))]
    where = Where(some)
    assert where.stay() and list(where.places) == [t.data_ptr() for t in some]


@needs_compiler
def test_tensors_like_these_are_noted() -> None:
    where = Where([torch.zeros(3, 2), torch.zeros(5)])
    good = [torch.ones(3, 2), torch.ones(7)[1:6]]
    assert where.note(good) and list(where.places) == [t.data_ptr() for t in good]
    strange = [
        torch.ones(5, dtype=torch.float64),
        torch.ones(10)[::2],
        torch.ones(1).expand(5),
        torch.ones(4),
    ]
    strange += [torch.ones(5, 1), torch._neg_view(torch.ones(5)), nn.Parameter(torch.ones(5))]
    strange += [torch.ones(5, dtype=torch.int32), torch.ones(5, device="meta"), torch.ones(5).to_sparse()]
    for other in strange:
        assert not where.note([good[0], other])
    assert where.note(good)


@needs_compiler
def test_counts_are_level_and_tick() -> None:
    counts = [torch.tensor(float(n)) for n in (3, 3, 4)]
    where = Where(counts)
    assert not where.level()
    counts[2].fill_(3)
    assert where.level()
    where.tick()
    assert [float(c) for c in counts] == [4, 4, 4]


@pytest.fixture
def anew() -> Iterator[None]:
    rule_where.asking.cache_clear()
    yield
    rule_where.asking.cache_clear()


FAULTS = {
    "turned tensors are dense": ("dense &= t->shape[a] == 1 || t->strides[a] == count;", ""),
    "whole numbers are as good": ("t->code == FLOAT", "1"),
    "any precision is": ("t->bits != kind[0] || ", ""),
    "another place is": ("place != places[i]", "0"),
    "another shape is": ("if (t->shape[a] != kind[2 + a]) return 0;", ""),
    "another number of axes is": (" || t->axes != kind[1]", ""),
}


@needs_compiler
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch, anew: None) -> None:
    """Some change between two steps would not be seen, or what stays is taken for something else."""
    right, wrong = FAULTS[fault]
    assert right in rule_where.TEXT
    monkeypatch.setattr(rule_where, "TEXT", rule_where.TEXT.replace(right, wrong))
    seen = []
    for change in CHANGES:
        tensor = three_by_four()
        where = Where([tensor])
        stayed = where.stay()
        change(tensor)
        seen.append(stayed and not where.stay())
    assert not all(seen)


def two_steps() -> tuple[RuleOptimizer, list[Tensor]]:
    weights = [nn.Parameter(torch.ones(30, 20)), nn.Parameter(torch.ones(7))]
    optimizer = nldsl.optimizer("adamw", list(weights), lr=0.1, form="compiled")
    for _ in range(3):
        for w in weights:
            w.grad = torch.full_like(w, 0.5)
        optimizer.step()
    return optimizer, [w.detach() for w in weights]


@needs_compiler
@pytest.mark.parametrize(
    ("name", "other"),
    [("TABLE", ("no_such_name", b"")), ("TABLE", (rule_where.TABLE[0], b"other")), ("VERSION", (2, 0))],
    ids=["no table", "another name", "another version"],
)
def test_a_torch_that_cannot_be_asked_is_asked_in_python(
    name: str, other: object, monkeypatch: pytest.MonkeyPatch, anew: None
) -> None:
    assert rule_where.asking() is not None
    _, before = two_steps()
    rule_where.asking.cache_clear()
    monkeypatch.setattr(rule_where, name, other)
    optimizer, after = two_steps()
    assert rule_where.asking() is None
    (lineup,) = optimizer.lineups.values()
    assert not lineup.takes(optimizer.param_groups[0]["params"], optimizer.state)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@needs_compiler
def test_a_sparse_gradient_of_a_lineup_is_refused_by_name() -> None:
    optimizer, _ = two_steps()
    weight = optimizer.param_groups[0]["params"][0]
    weight.grad = torch.ones(30, 20).to_sparse()
    with pytest.raises(SpecError, match="NL0966.*the gradient of parameter 0 of group 0 is sparse"):
        optimizer.step()


def put(name: str, value: object) -> Callable[[dict[str, object]], None]:
    return lambda group: group.update({name: value})


SAID: list[tuple[Callable[[dict[str, object]], None], str]] = [
    (put("lr", -1.0), "lr"),
    (put("lr", float("nan")), "lr"),
    (put("lr", True), "lr"),
    (put("beta1", "much"), "beta1"),
    (put("betas", (0.9,)), "betas"),
    (put("betas", [0.9, 2.0]), "beta2"),
    (put("lr", torch.tensor([1.0, 2.0])), "lr"),
]


@pytest.mark.parametrize(("change", "name"), SAID)
def test_what_is_written_into_a_group_between_steps_is_seen(
    change: Callable[[dict[str, object]], None], name: str
) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = nldsl.optimizer("adamw", [weight], lr=1.0)
    for _ in range(2):
        weight.grad = torch.ones(3)
        optimizer.step()
    change(optimizer.param_groups[0])
    with pytest.raises(SpecError, match=f"NL0968.*{name}"):
        optimizer.step()


@pytest.mark.parametrize("kind", ["tensor", "list"])
def test_what_changes_in_place_is_seen(kind: str) -> None:
    """Schedulers write into a rate that is a tensor."""
    weight = nn.Parameter(torch.zeros(3))
    optimizer = nldsl.optimizer("adam", [weight], lr=0.5)
    group = optimizer.param_groups[0]
    rate, betas = torch.tensor(0.5), [0.9, 0.999]
    group.update({"lr": rate} if kind == "tensor" else {"betas": betas})
    for _ in range(3):
        weight.grad = torch.ones(3)
        optimizer.step()
        if kind == "list":
            group["betas"] = betas
    if kind == "tensor":
        rate.fill_(-1.0)
    else:
        betas[0] = 7.0
    with pytest.raises(SpecError, match="NL0968"):
        optimizer.step()


def test_a_cycled_name_is_followed_behind_steps_without_a_change() -> None:
    found = []
    for steps in (0, 3):
        weight = nn.Parameter(torch.zeros(3))
        optimizer = nldsl.optimizer("adam", [weight], lr=0.5)
        group = optimizer.param_groups[0]
        weight.grad = torch.zeros(3)
        for _ in range(steps):
            optimizer.step()
        group["betas"] = (0.5, 0.9)
        optimizer.step()
        found.append((group["beta1"], group["beta2"]))
    assert found == [(0.5, 0.9)] * 2
