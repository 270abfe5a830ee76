"""Matrix memories in one pass, their chunks in C: equal to torch and interpreter; what stays with torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.native import matrix_passes
from nldsl.native.matrix_passes import NativeMatrices, matrices_of, quicken_matrices
from nldsl.native.repeats import Repeat
from nldsl.runtime import native
from nldsl.runtime.chunk_buffers import Given, How, Reading
from nldsl.runtime.chunk_pass import chunk_pass
from tests.conformance.agreement import compiled, disagreements

pytestmark = pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")
BLOCK = """
block b(x, heads = 2) {{
  level c every 1 token {{ memory S = matrix() per head(heads) init zero }}
  k = l2norm(split(linear(x), heads))
  {}
  return merge(S[split(linear(x), heads)])
}}
"""
WRITES = {
    "linear": "S[k] <- split(linear(x), heads) minimize dot by gd(lr = 1) retain sigmoid(linear(x, heads))",
    "delta": "S[k] <- split(linear(x), heads) minimize l2 by gd(lr = sigmoid(linear(x, heads)))",
    "channels": "S *= split(sigmoid(linear(x) + 3), heads)\n"
    "  S[k] <- split(linear(x), heads) minimize l2 by gd(lr = 0.5)",
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every width is compiled when it is seen, by a compiler that takes less time."""
    monkeypatch.setattr(matrix_passes, "AFTER", 0)
    monkeypatch.setattr(native, "FLAGS", [[*"-O1 -shared -fPIC -lm".split()]])


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def case(kinds: str, tokens: int, heads: int, fade: int, seed: int = 0) -> dict[str, Any]:
    """Tensors of a pass that erases, writes, or does both; `fade`: channels of its decay.

    "s": what is erased is found where is written, as one tensor.
    """
    torch.manual_seed(seed)
    batch, inner, outer = 2, 3, 5

    def rows(size: int) -> Tensor:
        return torch.randn(batch, heads, tokens, size, dtype=torch.float64).transpose(1, 2).requires_grad_()

    erase = (rows(inner), rows(1).squeeze(-1), rows(inner), rows(outer)) if "e" in kinds else None
    if erase is not None and "s" in kinds:
        erase = (erase[0], erase[1], erase[0], erase[3])
    return {
        "q": rows(inner),
        "erase": erase,
        "write": (rows(inner), rows(outer)) if "w" in kinds else None,
        "sums": rows(fade) if fade else None,
        "state": drawn(batch, heads, outer, inner),
    }


def leaves_of(given: dict[str, Any]) -> list[Tensor]:
    parts = (given["q"], given["sums"], given["state"], *(given["erase"] or ()), *(given["write"] or ()))
    return [x for x in parts if x is not None]


@pytest.mark.parametrize(
    ("kinds", "tokens", "fade", "reads", "width"),
    [
        ("ew", 19, 3, Reading(True, True), (*[2] * 8, 3)),
        ("e", 44, 1, Reading(False, False), (*[4] * 4, *[2] * 4, *[4] * 5)),
        ("e", 8, 1, Reading(False, False), 4),
        ("e", 8, 1, Reading(False, True), 4),
        ("e", 3, 0, Reading(False, True), 4),
        ("es", 9, 3, Reading(False, False), 4),
        ("ews", 7, 1, Reading(True, True), 4),
        ("es", 5, 0, Reading(False, False), 4),
        ("w", 7, 3, Reading(True, True), 4),
        ("ew", 9, 3, Reading(True, True), 4),
        ("ew", 9, 1, Reading(False, False), 4),
    ],
)
def test_a_pass_is_that_of_torch(
    kinds: str, tokens: int, fade: int, reads: Reading, width: int | tuple[int, ...]
) -> None:
    """Chunks of one width, and of several behind one another."""
    how = {"reads": reads, "early_erase": reads.early, "width": width}
    passes = NativeMatrices()
    for seed in range(3):
        # The first call compiles, the next ones are repeats of it on other numbers in other places.
        given = case(kinds, tokens, 2, fade, seed)
        plain, own = (computed(given, how, instead) for instead in (None, passes))
        assert off(plain, own) <= 1e-12
        assert passes.count == (2 if isinstance(width, int) else 4), passes.reasons
    assert [chunk.same for chunk in passes.forms] == ["s" in kinds]


def computed(given: dict[str, Any], how: dict[str, Any], instead: NativeMatrices | None) -> list[Tensor]:
    """Answers, the last state, and gradients of everything given."""
    y, last = chunk_pass(**given, **how, instead=instead)
    torch.manual_seed(1)
    above = [torch.randn(x.shape, dtype=x.dtype) for x in (y, last)]
    return [y, last, *torch.autograd.grad([y, last], leaves_of(given), above)]


def off(plain: list[Tensor], own: list[Tensor]) -> float:
    """How far results are from one another, of the largest number of each."""
    pairs = zip(plain, own, strict=True)
    # Not the `max` of Python, which loses what is no number.
    return float(torch.stack([(a - b).detach().abs().max() / a.detach().abs().max() for a, b in pairs]).max())


REPEATED = {"reads": Reading(True, True), "early_erase": True, "width": (*[4] * 4, *[2] * 4, *[4] * 4)}


def test_a_repeat_asks_how_everything_lies() -> None:
    """What lies otherwise, or was kept otherwise by hooks, is no repeat; what is kept has an end."""
    passes = NativeMatrices()
    alike = [case("ew", 40, 2, 3, seed) for seed in range(2)]
    for given in alike:
        assert off(computed(given, REPEATED, None), computed(given, REPEATED, passes)) <= 1e-12
    (form,) = passes.forms.values()
    known = [dict(again.known) for again in form.again]
    # Both widths; the first and the last run lie alike.
    assert [len(x) for x in known] == [2, 2]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x.contiguous()):
        assert off(computed(alike[0], REPEATED, None), computed(alike[0], REPEATED, passes)) <= 1e-12
    assert {*known[1]} < {*form.again[1].known}
    other = case("ew", 40, 2, 3)
    other["q"] = other["q"].detach().contiguous().requires_grad_()
    assert off(computed(other, REPEATED, None), computed(other, REPEATED, passes)) <= 1e-12
    assert {*known[0]} < {*form.again[0].known}


@pytest.fixture
def poisoned() -> Iterator[None]:
    """New memory is full of NaN: it may still hold what is right from the call before."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
def test_a_repeat_in_the_wrong_place_is_seen() -> None:
    """Every array of both ways counts: one that begins a number later is seen."""
    passes, given = NativeMatrices(), case("ew", 40, 2, 3)
    wanted = computed(given, REPEATED, passes)
    assert off(wanted, computed(given, REPEATED, passes)) == 0.0
    (form,) = passes.forms.values()
    unseen = [
        {owner for repeat in again.known.values() for owner in unread(repeat, given, wanted, passes)}
        for again in form.again
    ]
    # What is added has been kept, so nobody asks for the targets on the way back.
    assert unseen == [set(), {Given._fields.index("w")}]


def unread(repeat: Repeat, given: dict[str, Any], wanted: list[Tensor], passes: NativeMatrices) -> list[int]:
    """Whose places do not matter to a repeat."""
    right, found = repeat.places, []
    for n, (owner, further) in enumerate(right):
        repeat.places = [*right[:n], (owner, further + 8), *right[n + 1 :]]
        if off(wanted, computed(given, REPEATED, passes)) <= 1e-6:
            found.append(owner)
    repeat.places = right
    return found


@pytest.mark.parametrize("write", WRITES)
def test_a_layer_equals_the_interpreter(write: str) -> None:
    layer = compiled(BLOCK.format(WRITES[write]), x=6)
    assert matrices_of(type(layer.root))
    passes = quicken_matrices(layer.root)
    assert not disagreements(layer)
    assert passes.count > 0
    assert not passes.reasons


def test_pieces_of_a_stream_and_tokens_left_out() -> None:
    layer = compiled(BLOCK.format(WRITES["delta"]), x=6)
    x = torch.randn(2, 70, 6, dtype=torch.float64)
    plain, _ = layer(x)
    mask = torch.rand(2, 70) < 0.8
    masked, _ = layer(x, mask=mask)
    quicken_matrices(layer.root)
    state, pieces = None, []
    for part in x.split((33, 1, 36), 1):
        y, state = layer(part, state)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), plain)
    torch.testing.assert_close(layer(x, mask=mask)[0][mask], masked[mask])


def test_only_what_has_come_up_often_enough_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_passes, "AFTER", 4)
    passes, given = NativeMatrices(), case("w", 8, 1, 0)
    how = {"reads": Reading(False, False), "early_erase": False, "width": 4, "instead": passes}
    counts = []
    for _ in range(3):
        chunk_pass(**given, **how)
        counts.append(passes.count)
    assert counts == [0, 0, 1]


def test_widths_that_change_often_and_half_precision_are_left_to_torch() -> None:
    passes, given = NativeMatrices(), case("w", 8, 1, 0)
    how = {"reads": Reading(False, False), "early_erase": False, "instead": passes}
    chunk_pass(**given, **how, width=(4, 2, 2))
    k, v = (x.bfloat16() for x in given["write"])
    half = Given(given["q"].bfloat16(), None, None, None, None, k, v, None)
    assert passes.passed(half, given["state"].bfloat16(), How(Reading(False, False), False, 4)) is None
    assert passes.count == 0


def test_the_report_names_the_block() -> None:
    layer = nldsl.compile("gated_deltanet", block="gated_deltanet", dim=8, heads=2)
    report = nldsl.native(layer, at_once=True)
    assert str(report) == "GatedDeltanet.forward: in lanes"
    layer(torch.randn(1, 40, 8))
    assert report.running == 1


@pytest.mark.parametrize(
    ("write", "said"),
    [
        ("over 4 tokens by momentum(lr = 0.1, beta = 0.9)", "several lessons step together"),
        ("over 4 tokens by gd(lr = 0.1)", "several lessons step together"),
        ("by momentum(lr = 0.1, beta = 0.9)", ""),
    ],
)
def test_the_report_says_what_torch_runs(write: str, said: str) -> None:
    text = (
        "block omega(x) {\n  level context every 1 token { memory M = matrix() }\n  k = l2norm(linear(x))\n"
        f"  M[k] <- linear(x)  minimize l2 {write}\n  return M[k]\n}}\n"
    )
    layer = nldsl.compile(text, x=8)
    report = nldsl.native(layer, at_once=True)
    layer(torch.randn(1, 8, 8))
    assert (said in str(report) and "there torch" in str(report)) == bool(said)
    assert bool(report.running) != bool(said)
