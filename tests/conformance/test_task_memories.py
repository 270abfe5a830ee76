"""Continuum memory systems of every construct: compiled `learn` against the interpreter; its contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import nldsl
from nldsl.reference import Interpreter, flatten_state
from nldsl.runtime import kept_layers, kept_rows, native, row_products
from nldsl.runtime.kept_rows import PIECE
from nldsl.runtime.model import Model
from nldsl.runtime.state import State
from nldsl.runtime.task import get_at
from tests.conformance.agreement import comparable, compiled

torch.set_num_threads(1)
VOCAB, TOKENS = 11, 21
LOOPS = 0
"""In place of the size of a piece."""
MODEL = """
model m(tokens, vocab = 11, dim = 6) {{
  x = embed(tokens, vocab, dim)
  x = x + mixer(norm(x))
  x = system(x)
  return head(norm(x), vocab)
}}
block mixer(x) {{
  level context every 1 token {{ memory S = matrix() }}
  k = l2norm(linear(x))
  S[k] <- x by gd(lr = 0.5)
  return S[k]
}}
{system}
train m {{ task next_token(carry = "{carry}"); level slow every 1 step {{ "*" by sgd(lr = 0.1) }} }}
"""
SYSTEMS = {
    "chain": """block system(x) {
  for c, i in [2, 4, 8] {
    level f every c tokens { memory F = mlp(2) }
    F minimizes task by gd(lr = 0.3)
    x = x + F[norm(x)]
  }
  return x
}""",
    "nested": """block system(x) { return cms_nested(x, fast = 2, slow = 8, expand = 2, rate = 0.3) }""",
    "independent": """block system(x) { return cms_independent(x, [2, 6], 2, 0.3) }""",
    "three_nested": """block system(x) {
  level slow every 8 tokens { memory C = mlp(2) }
  level mid every 4 tokens { memory B = mlp(2) init C reset every 8 tokens }
  level fast every 2 tokens { memory A = mlp(2) init B reset every 4 tokens }
  A minimizes task by gd(lr = 0.3)
  B minimizes task by momentum(lr = 0.3, beta = 0.5)
  C minimizes task by gd(lr = 0.3)
  return x + A[norm(x)] + B[x] + C[norm(x)]
}""",
    "reset_between_steps": """block system(x) {
  level slow every 4 tokens { memory B = mlp(2) reset every 6 tokens }
  level fast every 2 tokens { memory A = mlp(2) }
  A minimizes task by adamw(lr = 0.05)
  B minimizes task by gd(lr = 0.3)
  return x + A[norm(x)] + B[norm(x)]
}""",
    "retention": """block system(x) {
  level f every 2 tokens { memory A = mlp(2);  memory B = matrix();  memory C = residual_mlp(2) per head(2) }
  a = sigmoid(mean(x))
  A minimizes task by gd(lr = 0.3) retain 0.9
  B minimizes task by gd(lr = 0.2 * a) retain a toward init
  C minimizes task by gd(lr = 0.3) retain a toward init
  return x + A[norm(x)] + B[x] + merge(C[split(x, 2)])
}""",
    "anchored": """block system(x) {
  level slow every 4 tokens { memory B = mlp(2) }
  level fast every 2 tokens { memory A = mlp(2) init B reset every 8 tokens }
  A minimizes task by momentum(lr = 0.3, beta = 0.5) retain 0.8 toward init
  B minimizes task by gd(lr = 0.5)
  return x + A[norm(x)] + B[x]
}""",
    "rules": """block system(x) {
  level f every 2 tokens { memory A = mlp(2);  memory B = matrix() }
  A minimizes task by m3(lr = 0.05, slow = 2)
  B minimizes task by lookahead(gd(lr = 0.3), slow = 2)
  return x + A[norm(x)] + B[x]
}""",
    "own_shapes": """block system(x) {
  level f every 2 tokens { memory A = biased(2);  memory B = matrix();  memory C = mlp(2) per head(2) }
  level g every 4 tokens { memory D = mlp(2) init A2 reset every 12 tokens;  memory A2 = mlp(2) }
  A minimizes task by nadam(lr = 0.05, decay = 0.1) retain 0.9
  B minimizes task by schedule_free(lr = 0.05) retain 0.9 toward init
  C minimizes task by nadam(lr = 0.05)
  A2 minimizes task by adafactor(lr = 0.05)
  D minimizes task by shampoo(lr = 0.05, slow = 2, eps = 0.01)
  return x + A[norm(x)] + B[x] + merge(C[split(x, 2)]) + A2[norm(x)] + D[norm(x)]
}
map biased(z, expand) {
  W2 = weight(expand * dim(z), dim(z))
  W1 = weight(dim(z), expand * dim(z))
  b  = weight(expand * dim(z))
  return W1 @ silu(W2 @ z + b)
}""",
    "outer_of_a_vector": """block system(x) {
  level f every 2 tokens { memory A = biased() }
  A minimizes task by full(lr = 0.05)
  return x + A[norm(x)]
}
map biased(z) { b = weight(dim(z)); return z * b }
rule full(lr) {
  if rank(W) == 1 {
    memory P = like(outer(W, W))
    memory n = like(step)
    P += outer(g, g)
    n  = where(step == 1, 1, 2)
    W  = W - lr * n * (P @ g) / (1 + sum(g ** 2) + sum(W ** 2))
  } else {
    W = W - lr * g
  }
}""",
}


def source(name: str, carry: str) -> str:
    return MODEL.format(system=SYSTEMS[name], carry=carry)


def stream(batch: int = 2, tokens: int = TOKENS, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCAB, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def mask_of(batch: int, tokens: int) -> Tensor:
    mask = torch.ones(batch, tokens, dtype=torch.bool)
    mask[0, [0, 5, 6]] = False
    mask[1, [3, tokens - 1]] = False
    return mask


def gradients(loss: Tensor, parameters: dict[str, Any]) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    pairs = zip(parameters.items(), found, strict=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in pairs}


def close(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, want in theirs.items():
        if name in mine:
            torch.testing.assert_close(mine[name].double(), want.double(), rtol=1e-9, atol=1e-10, msg=name)


def learnt(state: Any) -> dict[str, Tensor]:
    kept = (".delta.", ".slots.", ".pending.")
    return {n: x for n, x in comparable(state).items() if any(k in n for k in kept) or n.endswith("count")}


@pytest.mark.parametrize("carry", ["trunc", "exact"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_learn_equals_the_interpreter(name: str, carry: str) -> None:
    """Loss, states and every outer gradient; in one call, in calls of odd lengths, and with masks."""
    model = compiled(source(name, carry))
    assert isinstance(model, Model)
    tokens, mask = stream(), mask_of(2, TOKENS)
    parameters = model.parameter_paths()
    meaning = Interpreter(model.program, dict(parameters), dtype=torch.float64)
    for live in (None, mask):
        want, state = meaning.learn(tokens, mask=live)
        expected = {n.replace("[", ".").replace("]", ""): x for n, x in flatten_state(state).items()}
        wanted = gradients(want, parameters)
        for cuts in ((TOKENS,), (1, 2, 5, 12, TOKENS)):
            loss, held = torch.zeros((), dtype=torch.float64), None
            for start, end in zip((0, *cuts), cuts, strict=False):
                part = None if live is None else live[:, start:end]
                more, held = model.learn(tokens[:, start:end], held, part)
                loss = loss + more
            torch.testing.assert_close(loss, want, rtol=1e-10, atol=1e-10)
            close(learnt(held), expected)
            close(gradients(loss, parameters), wanted)
    moved = [x for n, x in learnt(held).items() if ".delta." in n]
    assert moved and all(x.abs().max() > 1e-4 for x in moved), "every memory has learnt"


def choose_form(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of so many bytes by torch, or loops in C from the first row on."""
    if piece != LOOPS:
        monkeypatch.setattr(kept_rows, "PIECE", piece)
        return
    if not native.compiler():
        pytest.skip("no C compiler")
    monkeypatch.setattr(row_products, "LEAST", 0)
    monkeypatch.setattr(row_products, "FEWEST", 1)
    monkeypatch.setattr(kept_layers, "LEAST", 0)


@pytest.mark.parametrize("carry", ["trunc", "exact"])
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("scale, piece", [(1.0, PIECE), (0.25, PIECE), (0.25, 64), (0.25, LOOPS)])
def test_training_passes_equal_the_interpreter(
    name: str, carry: str, scale: float, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`learn(backward = s)` in one call: gradients of the parameters, loss and state; with masks too.

    With pieces of eight numbers matrices count as large, and plain descent takes them piece by piece; loops
    in C take whatever is given to them.
    """
    choose_form(piece, monkeypatch)
    model = compiled(source(name, carry))
    tokens, mask = stream(), mask_of(2, TOKENS)
    parameters = model.parameter_paths()
    meaning = Interpreter(model.program, dict(parameters), dtype=torch.float64)
    for live in (None, mask):
        want, state = meaning.learn(tokens, mask=live)
        wanted = gradients(want, parameters)
        model.zero_grad(set_to_none=True)
        loss, held = model.learn(tokens, None, live, backward=scale)
        torch.testing.assert_close(loss, want.detach(), rtol=1e-10, atol=1e-10)
        expected = {n.replace("[", ".").replace("]", ""): x for n, x in flatten_state(state).items()}
        close(learnt(held), expected)
        found = {n: torch.zeros_like(p) if p.grad is None else p.grad / scale for n, p in parameters.items()}
        close(found, wanted)


@pytest.mark.parametrize("piece", [PIECE, 64, LOOPS])
@pytest.mark.parametrize("name", SYSTEMS)
def test_training_passes_in_many_calls(name: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that end within segments and periods: the same states as in one call of the interpreter."""
    choose_form(piece, monkeypatch)
    model, tokens, held = compiled(source(name, "trunc")), stream(), None
    meaning = Interpreter(model.program, dict(model.parameter_paths()), dtype=torch.float64)
    _, state = meaning.learn(tokens)
    cuts = (1, 3, 4, 5, 9, 12, TOKENS)
    for start, end in zip((0, *cuts), cuts, strict=False):
        _, held = model.learn(tokens[:, start:end], held, backward=0.5)
    expected = {n.replace("[", ".").replace("]", ""): x for n, x in flatten_state(state).items()}
    close(learnt(held), expected)
    assert not any("whole" in n for n in held.tensors()) and len(learnt(held)) > 2


@pytest.mark.parametrize("name", SYSTEMS)
def test_without_gradients_no_history_outlives_its_segment(name: str) -> None:
    """Under `no_grad` an `exact` model learns the same, and a stream read for ever keeps no graph."""
    model, tokens, held = compiled(source(name, "exact")), stream(), None
    want, behind = model.learn(tokens[:, :17])
    assert any(x.grad_fn is not None for x in behind.tensors().values()), "a history to be had"
    losses = []
    with torch.no_grad():
        for start, end in ((0, 7), (7, 17)):
            loss, held = model.learn(tokens[:, start:end], held)
            losses.append(loss)
    assert held is not None and not any(loss.requires_grad for loss in losses)
    torch.testing.assert_close(sum(losses), want.detach(), rtol=1e-12, atol=1e-12)
    close(learnt(held), learnt(behind))
    assert not [n for n, x in held.tensors().items() if x.grad_fn is not None]


@pytest.mark.parametrize("name", ["chain", "nested", "independent"])
def test_rate_zero_is_the_plain_chain_to_the_last_bit(name: str) -> None:
    text, tokens = source(name, "trunc"), stream()
    still = compiled(
        text.replace("lr = 0.3", "lr = 0.0").replace("rate = 0.3", "rate = 0.0").replace("0.3)", "0.0)")
    )
    loss, state = still.learn(tokens)
    pieces, plain = [], None
    for start in range(0, TOKENS - 1, 2):
        logits, plain = still(tokens[:, start : start + 2], plain)
        pieces.append(logits)
    wanted = [
        F.cross_entropy(y.flatten(0, 1), tokens[:, 1 + 2 * n : 3 + 2 * n].flatten(), reduction="none").sum()
        for n, y in enumerate(pieces)
    ]
    assert state.scored == 2 * (TOKENS - 1)
    assert torch.equal(loss, sum(wanted, torch.zeros((), dtype=torch.float64)))
    rest = State({k: v for k, v in state.tree.items() if k != "held"}, program=state.program)
    assert torch.equal(still(tokens[:, -1:], rest)[0], still(tokens[:, -1:], plain)[0])


@pytest.mark.parametrize("name", ["chain", "nested", "independent"])
@pytest.mark.parametrize("place", [7, 8, 13])
def test_contract(name: str, place: int) -> None:
    """Token t: no logits before t, no fast weights before the first chunk at or after t, no other sample."""
    model = compiled(source(name, "trunc"))
    tokens = stream()
    other = tokens.clone()
    other[0, place] = (other[0, place] + 1) % VOCAB
    before, after = (deltas_and_logits(model, x) for x in (tokens, other))
    for t in range(TOKENS - 1):
        same = torch.equal(before[t][0][0], after[t][0][0])
        assert same == (t < place), f"logits at {t}"
        assert torch.equal(before[t][0][1], after[t][0][1]), "the other sample"
        # The error of position t - 1 is known when token t arrives: deltas used from chunk n C on.
        used = [torch.equal(a[0], b[0]) for a, b in zip(before[t][1], after[t][1], strict=True)]
        first = -(-place // 2) * 2
        assert all(used) == (t < first), f"fast weights at {t}"
        assert all(torch.equal(a[1], b[1]) for a, b in zip(before[t][1], after[t][1], strict=True))


def deltas_and_logits(model: Any, tokens: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
    """For every position: its logits, and the fast weights they were computed with."""
    found, state = [], model.init_state(tokens.shape[0])
    for t in range(tokens.shape[1] - 1):
        # Token t is the target of the one held back, which is processed now; then t itself is held back.
        _, state = model.learn(tokens[:, t : t + 1], state)
        deltas = [x for n, x in sorted(state.tensors().items()) if "/delta/" in n]
        found.append((logits_of_held(model, state), deltas))
    return found


def logits_of_held(model: Any, state: Any) -> Tensor:
    """Logits of the token that `state` holds back."""
    held = state.tree["held"]["token"].unsqueeze(1)
    rest = type(state)({k: v for k, v in state.tree.items() if k != "held"}, program=state.program)
    return model(held, rest)[0][:, 0].detach()


def test_chain_nested_and_independent_differ() -> None:
    """Reading P11: the three constructs of Eq. 72-74 are three."""
    tokens = stream()
    losses = []
    for text in (
        SYSTEMS["chain"].replace("[2, 4, 8]", "[2, 8]"),
        SYSTEMS["nested"],
        SYSTEMS["independent"].replace("[2, 6]", "[2, 8]"),
    ):
        model = nldsl.compile(MODEL.format(system=text, carry="trunc"), dtype=torch.float64)
        losses.append(model.learn(tokens)[0].item())
    assert len({round(x, 6) for x in losses}) == 3


@pytest.mark.parametrize("rule", ["gd", "momentum", "adamw", "lion", "muon", "rmsprop", "radam"])
@pytest.mark.parametrize("retain", ["", " retain 1.0 toward init"])
def test_a_delta_stays_to_the_last_bit_at_rate_zero(rule: str, retain: str) -> None:
    """Also one that is not zero: what was learnt before, or elsewhere."""
    text = f"""block plain(x) {{
      level f every 4 tokens {{ memory F = mlp(2) reset never }}
      F minimizes task by {rule}(lr = 0){retain}
      return x + F[norm(x)]
    }}
    model m(tokens, vocab = 16, dim = 8) {{ return head(plain(norm(embed(tokens, vocab, dim))), vocab) }}
    """
    model, generator = nldsl.compile(text), torch.Generator().manual_seed(0)
    (task,) = model.task_memories()
    with torch.no_grad():
        _, state = model.learn(torch.randint(0, 16, (2, 5), generator=generator), model.init_state(2))
        entry = get_at(state.tree["root"], task.keys)
        if entry["delta"] is None:  # plain descent at rate zero is known never to move anything
            assert rule in ("gd", "momentum") and not retain
            return
        for delta in entry["delta"].values():
            delta.copy_(torch.randn(delta.shape, generator=generator) * 0.3)
        before = {name: delta.clone() for name, delta in entry["delta"].items()}
        _, state = model.learn(torch.randint(0, 16, (2, 16), generator=generator), state)
    entry = get_at(state.tree["root"], task.keys)
    assert int(entry["count"][0]) == 20
    assert all(torch.equal(entry["delta"][name], delta) for name, delta in before.items())


@pytest.mark.parametrize("carry", ["trunc", "exact"])
@pytest.mark.parametrize("backward", [0.0, 0.5])
def test_what_learn_is_asked(carry: str, backward: float) -> None:
    """Tokens in 32 bits are those in 64; what nobody can mean is said so."""
    model, tokens = compiled(source("chain", carry)), stream()
    assert isinstance(model, Model)
    want, _ = model.learn(tokens, backward=backward)
    found, held = model.learn(tokens[:, :9].int(), backward=backward)
    more, _ = model.learn(tokens[:, 9:].int(), held, backward=backward)
    torch.testing.assert_close(found + more, want, rtol=1e-12, atol=1e-12)
    for wrong in ("exact", float("nan"), None):
        with pytest.raises(ValueError, match="expected a number, the scale of the loss"):
            model.learn(tokens, backward=wrong)  # type: ignore[arg-type]
    for levels in (["f", "nothing"], "f"):
        with pytest.raises(ValueError, match="expected a collection of levels with task memories: '"):
            model.learn(tokens, backward=backward, levels=levels)
