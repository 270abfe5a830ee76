"""What memories near to those of papers are called, and what is said of their spectra."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.view import explain
from nldsl.view.diff import diff
from tests.conformance.strangers import block
from tests.conformance.strangers_again import BREGMAN, GATED_TERMS

DUAL = """
rule far(lr, beta = 0.9) {
  memory A, m = like(W)
  m = beta * m - lr * g
  A = where(step == 1, W, A) + m
  W = A / (0.1 + sum(sum(abs(A) ** 4))) ** 0.5
}
objective hinge(pred, target) { return sum(where(pred > target, pred - target, 0)) }
objective bounded(pred, target) {
  e = abs(pred - target)
  return sum(where(e > 0.5, 0.5 * e - 0.125, e ** 2 / 2))
}
"""
WRITES = {
    "minimize lp by far(lr = 0.1)": "",
    "minimize lp by mirror_norm(lr = 0.1)": "Moneta, a step",
    "minimize l2 by mirror_softmax(lr = 0.1)": "Memora, a step",
    "minimize huber by mirror_softmax(lr = 0.1)": "Memora, a step",
    "minimize huber by gd(lr = 0.1) retain 0.9": "Yaad, the Huber loss",
    "minimize bounded by gd(lr = 0.1)": "Yaad, the Huber loss",
    "minimize huber by momentum(lr = 0.1)": "an objective of the Miras family, with momentum",
    "minimize huber over 2 tokens by gd(lr = 0.1)": "OmegaNet, the Omega rule",
    "minimize hinge by gd(lr = 0.1)": "an objective of the Miras family",
}


@pytest.mark.parametrize("how", WRITES)
def test_names_of_the_miras_family_where_they_are_due(how: str) -> None:
    """A dual with momentum is no Moneta; Yaad is the Huber loss, however written, under gradient descent."""
    text = DUAL + block("memory S = matrix() per head init learned", f"S[k] <- v {how}; y = S[q]")
    (memory,) = explain(text.replace("every 1 token", "every 3 tokens"), dim=8).equations
    assert memory.known_as.partition(" (")[0].startswith(WRITES[how]) and bool(WRITES[how]) == bool(
        memory.known_as
    )


def test_a_dual_with_a_huber_loss_is_no_yaad() -> None:
    assert explain(BREGMAN, dim=8).equations[0].known_as == ""


def test_a_spectrum_is_that_of_targets_that_are_given() -> None:
    text = GATED_TERMS.replace("S[q] minimize", "tanh(S[q]) minimize")
    (memory,) = explain(text, dim=8).equations
    assert memory.spectrum.endswith("that is for a target that is given; this one is made of `S[q]`")


YAML = """
nldsl: 1
block b:
  takes: [x, "heads = 2"]
  levels:
    fast: {every: 1 token, memories: {S: "matrix() per head", T: "matrix() per head"}}
  body:
    - k = l2norm(split(linear(x), heads))
    - p = l2norm(split(linear(x), heads))
    - v = split(linear(x), heads)
    - write: S
      retain: sigmoid(linear(x, heads))
      terms:
        - {key: k, value: v, minimize: l2, by: "gd(lr = 0.2)"}
        - {key: p, value: "v * 2", minimize: dot, by: "gd(lr = 1)"}
    - write: each of S, T
      key: k
      value: self[p] + v
      by: gd(lr = 0.2)
    - write: T
      key: v
      value: p
      by: gd(lr = 0.1)
      retain: 0.9
    - return linear(merge(S[k] + T[p]))
"""
TEXT = """
block b(x, heads = 2) {
  level fast every 1 token { memory S = matrix() per head; memory T = matrix() per head }
  k = l2norm(split(linear(x), heads))
  p = l2norm(split(linear(x), heads))
  v = split(linear(x), heads)
  write S {
    [k] <- v  minimize l2  by gd(lr = 0.2)
    [p] <- v * 2  minimize dot  by gd(lr = 1)
  }  retain sigmoid(linear(x, heads))
  write each of S, T { [k] <- self[p] + v  by gd(lr = 0.2) }
  T[v] <- p  by gd(lr = 0.1)  retain 0.9
  return linear(merge(S[k] + T[p]))
}
"""


def test_what_is_told_of_a_write_in_yaml_is_what_is_told_of_it_in_text(tmp_path: Path) -> None:
    """Names, keys and gates were read off the characters, and a mapping has others."""
    (tmp_path / "b.yaml").write_text(YAML)
    (tmp_path / "b.nl").write_text(TEXT)
    one, other = (explain(tmp_path / name, dim=8) for name in ("b.yaml", "b.nl"))
    assert [(e.known_as, e.formulas, e.where) for e in one.equations] == [
        (e.known_as, e.formulas, e.where) for e in other.equations
    ]
    assert one.equations[0].where and one.equations[1].where
    assert diff(tmp_path / "b.yaml", tmp_path / "b.nl", dim=8).changes == ()


def test_equations_of_vectors_are_those_of_papers() -> None:
    """The key 1 is no vector, and what nobody named is told by what makes it."""
    text = """
    block b(x) {
      level c every 1 token { memory h, g, n = matrix(out = dim(x), in = 1) }
      z = sigmoid(linear(x))
      h *= 1 - z
      h += z * linear(x)
      g[1] <- z  minimize l2  by gd(lr = 0.1)  retain 0.9
      n -= sum(z)
      return linear(h[1] + g[1] + n[1])
    }
    """
    equations = explain(text, dim=8).equations
    told = [f.text for e in equations for f in (*e.formulas, *e.where)]
    assert told == [
        "h_t = diag(alpha_t) h_{t-1} + vhat_t",
        "vhat_t = z * linear(x)",
        "alpha_t = 1 - z",
        "g_t = g_{t-1} (0.9 I - 0.1) + 0.1 z_t",
        "n_t = n_{t-1} + vhat_t",
        "vhat_t = -sum(z)",
    ]
    assert equations[0].formulas[0].latex.endswith(r"h_{t-1} + \hat{v}_{t}")
