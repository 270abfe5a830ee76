"""Memories with gradients held at a base: the chunk form is taken, and equals the interpreter."""

from __future__ import annotations

import pytest
import torch

from nldsl.driver import open_program, plan_of
from nldsl.plan.details import ChunkDetail
from nldsl.runtime.model import Layer
from nldsl.view import explain
from tests.conformance.agreement import compiled, disagreements
from tests.conformance.test_lowerings import PROGRAMS, SPECS

HELD = [n for n in PROGRAMS if f"### {n} " in (SPECS / "held_gradients.txt").read_text()]


def chunked(name: str) -> tuple[Layer, int]:
    """The layer, and the chunk of its memories, all of which take the chunk form."""
    text, arguments = PROGRAMS[name]
    layer = compiled(text, **arguments)
    units = [u for u in plan_of(layer.program).blocks[-1].units if u.memories]
    assert {u.lowering for u in units} <= {"chunk", "held"}
    return layer, max(u.detail.grid for u in units if isinstance(u.detail, ChunkDetail))


@pytest.mark.parametrize("name", HELD)
def test_split_and_masked(name: str) -> None:
    """In pieces, with masked tokens, where samples stand at different counts."""
    layer, chunk = chunked(name)
    mask = torch.rand(2, 2 * chunk + 2, generator=torch.Generator().manual_seed(1)) > 0.3
    assert disagreements(layer, tokens=2 * chunk + 2, mask=mask, pieces=(2, chunk + 1, 0, chunk - 1)) == []


@pytest.mark.long
@pytest.mark.parametrize("name", HELD)
def test_lengths(name: str) -> None:
    """Around the ends of chunks."""
    layer, chunk = chunked(name)
    for tokens in (0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk + 2):
        assert disagreements(layer, tokens=tokens, gradients=tokens > 0) == [], tokens


@pytest.mark.parametrize(
    "name", ["write_each_self", "titans_mlp", "two_terms_erase", "live_beside_held", "lact"]
)
def test_recomputed_steps(name: str) -> None:
    """`checkpoint`: every chunk is computed again in the backward pass, with the same gradients."""
    text, arguments = PROGRAMS[name]
    layer = compiled(text, checkpoint=True, **arguments)
    mask = torch.rand(2, 10, generator=torch.Generator().manual_seed(1)) > 0.3
    assert disagreements(layer, tokens=10, mask=mask, pieces=(2, 5, 0, 3)) == []


@pytest.mark.parametrize("name", ["two_momenta", "erases_in_two_memories"])
def test_explained_as_states_that_mix(name: str) -> None:
    text, arguments = PROGRAMS[name]
    said = " ".join(str(explain(text, **arguments)).split())
    assert "for Z = (W, m, n), folded by doubling" in said
    assert ("what is erased solves one triangular system" in said) == name.startswith("erases")


PENALTY = """
objective far(pred, target, W) { return 0.5 * sum((pred - target) ** 2) + sqrt(1 + sum(sum(W ** 2))) }
block b(x) {
  level c every 1 token { memory M = matrix() init learned }
  M[l2norm(linear(x))] <- linear(x) CLAUSES
  return M[linear(x)]
}
"""


@pytest.mark.parametrize(
    ("clauses", "advice"),
    [
        ("minimize far by gd(lr = 0.1)", "`gradient every 16 tokens`"),
        ("by mirror_softmax(lr = 0.1)", "on a level `every 16 tokens`"),
    ],
)
def test_what_would_be_parallel_is(clauses: str, advice: str) -> None:
    """The advice beside a form that goes token by token leads to one that does not."""
    text = PENALTY.replace("CLAUSES", clauses)
    said = " ".join(str(explain(text, dim=4)).split())
    assert "one token after the other" in said and advice in said
    held = text.replace(clauses, f"{clauses} gradient every 16 tokens")
    slow = text.replace("every 1 token ", "every 16 tokens ")
    plan = plan_of(open_program(held if "gradient" in advice else slow, dim=4))
    (unit,) = (u for u in plan.blocks[-1].units if u.memories)
    assert unit.lowering in ("chunk", "held")


def test_a_penalty_that_is_linear_is_not_blamed() -> None:
    """A window of one is no recurrence of rank one, and the gradient is linear in the memory all the same."""
    text = PENALTY.replace("sqrt(1 + sum(sum(W ** 2)))", "sum(sum(W ** 2))")
    said = " ".join(
        str(explain(text.replace("CLAUSES", "minimize far over 3 tokens by gd(lr = 0.1)"), dim=4)).split()
    )
    assert "one token after the other" in said and "not linear in it" not in said
