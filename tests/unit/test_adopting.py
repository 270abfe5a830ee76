"""A compiled program inside somebody else's PyTorch project: wrong inputs, pickles."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nldsl
from nldsl import Layer, Model
from nldsl.emit.loader import load_module

TEXT = """
block mixer(x, heads = 2) {
  level context every 4 tokens { memory M = matrix() per head init zero }
  k = l2norm(split(linear(x), heads))
  M[k] <- linear(x)  minimize l2  by gd(lr = 0.1)
  return linear(merge(M[k]))
}
block pair(x, z) { return linear(x) + linear(z, dim(x)) }
model tiny(tokens, vocab = 16, dim = 8) {
  x = embed(tokens, vocab, dim)
  return head(norm(x + mixer(norm(x))), vocab)
}
"""


@pytest.fixture(scope="module")
def layer() -> Layer:
    return nldsl.compile(TEXT, block="mixer", dim=8)


@pytest.fixture(scope="module")
def model() -> Model:
    found = nldsl.compile(TEXT)
    assert isinstance(found, Model)
    return found


def test_inputs_of_another_shape_are_told_with_both_shapes(layer: Layer) -> None:
    with pytest.raises(ValueError, match=r"`x` of `mixer` is \[5, 8\], expected \[batch, tokens, 8\]"):
        layer(torch.zeros(5, 8))
    with pytest.raises(ValueError, match=r"`x` of `mixer` is \[1, 5, 6\], expected \[batch, tokens, 8\]"):
        layer(torch.zeros(1, 5, 6))
    with pytest.raises(ValueError, match="takes `x` in front of the state, found 2 tensors"):
        layer(torch.zeros(1, 5, 8), torch.zeros(1, 5, 8))
    with pytest.raises(ValueError, match="found 0 tensors"):
        layer()
    pair = nldsl.compile(TEXT, block="pair", x=8, z=4)
    assert pair(torch.zeros(2, 3, 8), torch.zeros(2, 3, 4))[0].shape == (2, 3, 8)
    with pytest.raises(ValueError, match="equal batch and tokens"):
        pair(torch.zeros(2, 3, 8), torch.zeros(2, 4, 4))


@pytest.mark.parametrize("mask", [torch.ones(1, 4, dtype=torch.bool), torch.ones(1, 5)])
def test_a_mask_is_one_truth_for_every_token(layer: Layer, mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"the mask of `mixer` .* expected \[1, 5\] of torch.bool"):
        layer(torch.zeros(1, 5, 8), mask=mask)


def test_tokens_are_whole_numbers_in_rows(model: Model) -> None:
    with pytest.raises(ValueError, match=r"`tokens` of `tiny` is \[5\], expected \[batch, tokens\]"):
        model(torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match="whole numbers"):
        model(torch.zeros(1, 5))
    with pytest.raises(ValueError, match=r"is \[5\], expected"):
        model.learn(torch.zeros(5, dtype=torch.long))
    assert model(torch.zeros(1, 0, dtype=torch.long))[0].shape == (1, 0, 16)


def test_emitted_text_alone_still_looks_at_axes_and_masks(model: Model) -> None:
    alone = load_module(model.source, "alone").build()
    assert not alone.taken
    with pytest.raises(ValueError, match=r"is \[5\], expected \[batch, tokens, \.\.\.\]"):
        alone(torch.zeros(5, dtype=torch.long))


def test_a_module_is_pickled_with_its_text(model: Model, tmp_path: Path) -> None:
    other = nldsl.compile(TEXT, seed=1)  # takes the place of the first one in sys.modules
    tokens = torch.arange(11)[None]
    for one in (model, other):
        buffer = io.BytesIO()
        torch.save(one, buffer)
        buffer.seek(0)
        again = torch.load(buffer, weights_only=False)
        assert torch.equal(again(tokens)[0], one(tokens)[0])
        assert again.root._parameters is again._parameters
        copied = copy.deepcopy(one)
        assert type(copied.root) is type(one.root)
        assert torch.equal(copied(tokens)[0], one(tokens)[0])
    torch.save(model, tmp_path / "model.pt")
    code = (
        "import sys, torch; m = torch.load(sys.argv[1], weights_only=False); "
        "print(m(torch.arange(11)[None])[0].double().sum().item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.pt")], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == pytest.approx(model(tokens)[0].double().sum().item(), abs=1e-6)


def test_a_part_is_pickled_too(model: Model) -> None:
    whole = next(m for m in model.modules() if type(m).__name__ == "Mixer")
    part = pickle.loads(pickle.dumps(whole))
    assert type(part).__name__ == "Mixer"
    assert [n for n, _ in part.named_parameters()] == [n for n, _ in whole.named_parameters()]


def test_what_export_cannot_take_is_told_at_once(layer: Layer) -> None:
    with pytest.raises(RuntimeError, match="NL0702: chunks and commits end where the counts"):
        torch.export.export(layer, (torch.zeros(1, 6, 8),))


def test_sizes_are_printed(layer: Layer) -> None:
    assert "(linear): Container(weight: 8 x 8)" in repr(layer)
