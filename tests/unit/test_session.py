"""Sessions: going on, learning, keeping, copying, and many over one set of weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nldsl
from nldsl.evaluate import Sampling, Session, learn_online
from nldsl.evaluate.online import bits
from nldsl.runtime.batching import join
from nldsl.runtime.model import Model
from nldsl.runtime.state import StateMismatchError

torch.set_num_threads(1)
TEXT = b"the cat sat on the mat and then the cat ate "
MIXED = """
model mixed(tokens, vocab = 256, dim = 8) {
  x = embed(tokens, vocab, dim)
  x = x + attention(norm(x), 2)
  x = x + short(norm(x))
  for c, i in [4, 8] {
    level f every c tokens { memory F = mlp(2) }
    F minimizes task by gd(lr = 0.1)
    x = x + F[norm(x)]
  }
  return head(norm(x), vocab)
}
block short(x) {
  level near every 1 token { memory W = softmax(window = 3) }
  level far every 3 tokens { memory M = mlp(1) }
  W[x] <- x
  M[x] <- x by gd(lr = 0.1)
  return W[conv(x, 3)] + M[x]
}
"""


@pytest.fixture(scope="module")
def model() -> Model:
    made = nldsl.compile(MIXED, dtype=torch.float64)
    assert isinstance(made, Model)
    return made


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_any_split_reads_the_same(model: Model) -> None:
    whole = Session(model).feed(TEXT)
    parts = Session(model)
    same(torch.cat([parts.feed(TEXT[:3]), parts.feed(TEXT[3:4]), parts.feed(TEXT[4:])], 1), whole)
    assert parts.position == len(TEXT) and parts.bytes == parts.state.bytes()


def test_learning_levels(model: Model) -> None:
    frozen, free, slow = Session(model), Session(model, learn=True), Session(model, learn=["f[1]"])
    for session in (frozen, free, slow):
        session.feed(TEXT)

    def moved(session: Session) -> set[str]:
        deltas = {n: x for n, x in session.state.tensors().items() if "/delta/" in n}
        return {n.split("/")[1] for n, x in deltas.items() if x.abs().max() > 0}

    assert moved(frozen) == set()
    assert moved(free) == {"F[0]", "F[1]"}
    assert moved(slow) == {"F[1]"}
    assert not torch.allclose(frozen.feed(b"x"), free.feed(b"x"))
    with pytest.raises(ValueError, match="no level `far` learns from the task"):
        Session(model, learn=["far"])


@pytest.mark.parametrize("learn", [False, True])
def test_save_load_fork(model: Model, tmp_path: Path, learn: bool) -> None:
    session = Session(model, learn=learn)
    session.feed(TEXT)
    fork = session.fork()
    session.save(tmp_path / "live.safetensors")
    again = Session(model, learn=learn).load(tmp_path / "live.safetensors")
    told = [bytes(s.generate(8, Sampling(seed=3))) for s in (session, fork, again)]
    assert told[0] == told[1] == told[2] and len(told[0]) == 8
    with pytest.raises(StateMismatchError):
        Session(nldsl.compile("hope_tiny", dim=8, depth=1)).load(tmp_path / "live.safetensors")  # type: ignore[arg-type]


@pytest.mark.parametrize("learn", [False, True])
def test_merged_sessions_are_isolated(model: Model, learn: bool) -> None:
    """Sequences at different places, one untouched, run as a batch as each would alone."""
    texts = [TEXT, TEXT[:7], b""]
    alone = [Session(model, learn=learn) for _ in texts]
    for session, text in zip(alone, texts, strict=True):
        session.feed(text)
    together = alone[0].merge(*alone[1:])
    assert together.batch == 3
    batched = together.feed(b" and so on, and so on")
    for row, session in enumerate(alone):
        same(session.feed(b" and so on, and so on")[0], batched[row])
    for one, other in zip(alone, together.split(), strict=True):
        same(one.feed(b"z"), other.feed(b"z"))
    with pytest.raises(ValueError, match="one sequence generates at a time"):
        next(together.generate(1))


def test_generation_goes_on_from_what_was_fed(model: Model) -> None:
    session = Session(model)
    behind = session.feed(TEXT)[0, -1]
    (first,) = session.generate(1, Sampling(temperature=0))
    assert first == int(behind[:256].argmax()) and session.position == len(TEXT) + 1
    assert len(list(Session(model).generate(3))) == 3, "an empty session starts a line"


def test_join_wants_states_of_one_program(model: Model) -> None:
    other = nldsl.compile("hope_tiny", dim=8, depth=1)
    with pytest.raises(StateMismatchError):
        join([model.init_state(1), other.init_state(1)])
    with pytest.raises(ValueError, match="at least one"):
        join([])


def test_learning_online_gains_and_tells_what_is_forgotten(model: Model) -> None:
    text = TEXT * 8 + b"0123456789" * 30
    found, session = learn_online(model, text, 64)
    assert sum(s.bytes for s in found) == len(text) and session.position == len(text)
    assert found[0].gained > 0.1 and sum(s.gained for s in found) > 0, "what was learnt is better known"
    last = found[-1]
    assert last.end == pytest.approx(bits(model, text[last.first :], session.state))
    assert found[0].forgotten != 0.0
    plain = nldsl.compile("gated_deltanet", dim=8, depth=1, heads=2)
    assert isinstance(plain, Model)
    with pytest.raises(ValueError, match="learns from the task"):
        learn_online(plain, TEXT)
