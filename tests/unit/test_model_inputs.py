"""What a compiled model is called with: wrong inputs are told in words of the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import nldsl

TOKENS = torch.arange(14).view(2, 7)


@pytest.fixture(scope="module")
def model() -> Any:
    return nldsl.compile("hope_tiny", dim=16, depth=1, vocab=32)


@pytest.fixture(scope="module")
def layer() -> Any:
    return nldsl.compile("gated_deltanet", block="gated_deltanet", x=16, heads=2)


WHOLE = r"`tokens` of `hope_tiny` are torch.%s, expected whole numbers \(torch.long\)"
WRONG: dict[str, tuple[Any, str]] = {
    "float": (TOKENS.float(), WHOLE % "float32"),
    "bytes": (TOKENS.to(torch.uint8), WHOLE % "uint8" + ": `tokens.long"),
    "bool": (TOKENS > 3, WHOLE % "bool"),
    "negative": (TOKENS - 3, "a token of `hope_tiny` is -3, expected 0 to 31"),
    "too large": (TOKENS + 20, "a token of `hope_tiny` is 33, expected 0 to 31"),
    "one axis": (TOKENS[0], r"is \[7\], expected \[batch, tokens\]"),
    "three axes": (TOKENS[None], r"is \[1, 2, 7\], expected \[batch, tokens\]"),
    "a list": ([[1, 2]], "is of type list, expected a tensor"),
    "an array": (TOKENS.numpy(), "is of type ndarray, expected a tensor"),
    "another device": (TOKENS.to("meta"), "is on meta, expected cpu"),
}


@pytest.mark.parametrize("name", WRONG)
def test_tokens_that_are_none(model: Any, name: str) -> None:
    x, said = WRONG[name]
    for call in (model, model.learn):
        with pytest.raises(ValueError, match=said):
            call(x)
    with pytest.raises(ValueError, match=said):
        model(x, model.init_state(2), None)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.ones(2, 7), r"is \[2, 7\] of torch.float32, expected \[2, 7\] of torch.bool"),
        (torch.ones(2, 6, dtype=torch.bool), r"is \[2, 6\] of torch.bool, expected \[2, 7\]"),
        (torch.ones(7, dtype=torch.bool), r"is \[7\] of torch.bool, expected \[2, 7\]"),
        ([True], r"is list, expected \[2, 7\] of torch.bool"),
    ],
)
def test_masks_that_are_none(model: Any, mask: Any, said: str) -> None:
    for call in (model, model.learn):
        with pytest.raises(ValueError, match=said):
            call(TOKENS, mask=mask)


def test_states_and_numbers_of_inputs(model: Any) -> None:
    with pytest.raises(ValueError, match="is dict, expected what an earlier call returned"):
        model(TOKENS, state={})
    with pytest.raises(ValueError, match="found 0 tensors"):
        model()
    with pytest.raises(ValueError, match="found 2 tensors"):
        model(TOKENS, TOKENS)
    for batch in (-1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="expected a number of sequences"):
            model.init_state(batch)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.double(), "is torch.float64, expected torch.float32 as the parameters are: `x.to"),
        (lambda x: x.long(), r"`x.to\(torch.float32\)`$"),
        (lambda x: x[..., :8], r"is \[2, 7, 8\], expected \[batch, tokens, 16\]"),
        (lambda x: x[0], r"is \[7, 16\], expected"),
    ],
)
def test_inputs_of_a_layer(layer: Any, change: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        layer(change(torch.ones(2, 7, 16)))


def test_what_is_right_goes_through(model: Any, layer: Any) -> None:
    logits = model(TOKENS)[0]
    assert torch.equal(model(TOKENS.int())[0], logits)
    assert model(TOKENS[:, :0])[0].shape == (2, 0, 32) and model(TOKENS[:0])[0].shape == (0, 7, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(2, 7, 16, dtype=torch.bfloat16))[0].shape == (2, 7, 16)


def test_an_index_error_of_something_else_stays_what_it_is(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Tensor) -> Any:
        raise IndexError("something else")

    monkeypatch.setattr(model.root, "forward", broken)
    with pytest.raises(IndexError, match="something else") as caught:
        model(TOKENS)
    assert not isinstance(caught.value, ValueError)
