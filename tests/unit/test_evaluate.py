"""Byte-count models against a literal count, generation against the full forward."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

import nldsl
from nldsl.evaluate import Sampling, bits_per_byte, count_model, generate
from nldsl.evaluate.bits import as_tokens
from nldsl.evaluate.generate import draw
from tests.unit.standin import StandIn

RANDOM = np.random.default_rng(0)
TEXT = np.frombuffer(
    b"".join(b"%d times %d is %d. " % (a, b, a * b) for a in range(60) for b in range(9)), np.uint8
)


def literal(data: np.ndarray, weights: tuple[np.ndarray, ...], window: bytes, order: int) -> float:
    """The bits per byte of one window, from dictionaries."""
    grams = Counter(bytes(data[i : i + n]) for n in (1, 2, 3) for i in range(len(data) - n + 1))
    context = Counter(bytes(data[i : i + n]) for n in (1, 2) for i in range(len(data) - n))
    bits = 0.0
    for t in range(1, len(window)):
        p = (grams[window[t : t + 1]] + 1) / (len(data) + 256)
        for n in range(1, min(order, t) + 1):
            seen = context[window[t - n : t]]
            w = weights[n - 1][seen.bit_length()]
            p = w * (grams[window[t - n : t + 1]] / seen if seen else 0.0) + (1 - w) * p
        bits -= math.log2(p)
    return bits / (len(window) - 1)


@pytest.mark.parametrize("order", [1, 2])
def test_ngram_is_the_literal_count(order: int) -> None:
    model = count_model(TEXT, order)
    window = b"7 times 8 is 56 or so?"
    got = model.bits_per_byte(np.frombuffer(window, np.uint8)[None])
    assert got == pytest.approx(literal(TEXT, model.weights, window, order), rel=1e-12)


def test_ngram_probabilities_sum_to_one() -> None:
    model = count_model(TEXT, 2)
    context = np.frombuffer(b"zq" + b"ti", np.uint8)
    for start in (0, 2):
        rows = [np.append(context[start : start + 2], np.uint8(c)) for c in range(256)]
        p = [model.probabilities(row, np.array([2]), 2)[0] for row in rows]
        assert sum(p) == pytest.approx(1.0) and min(p) > 0


def test_ngram_orders_help_on_text_and_not_on_noise() -> None:
    noise = RANDOM.integers(0, 256, 200_000, dtype=np.uint8)
    windows = TEXT[-2000:].reshape(-1, 100)
    assert count_model(TEXT, 2).bits_per_byte(windows) < count_model(TEXT, 1).bits_per_byte(windows) < 4
    fresh = RANDOM.integers(0, 256, (20, 100), dtype=np.uint8)
    assert 7.95 < count_model(noise, 2).bits_per_byte(fresh) < 8.1


def test_ngram_refuses_what_it_cannot_count() -> None:
    with pytest.raises(ValueError, match="orders"):
        count_model(TEXT, 3)
    with pytest.raises(ValueError, match="at least"):
        count_model(TEXT[:10], 1)


def test_bits_per_byte_is_the_mean_over_all_windows() -> None:
    model = StandIn()
    windows = TEXT[: 7 * 33].reshape(7, 33)
    logits, _ = model(as_tokens(windows)[:, :-1])
    p = logits.log_softmax(-1).gather(-1, as_tokens(windows)[:, 1:, None])
    expected = -float(p.mean().detach()) / math.log(2)
    for batch in (1, 3, 7):
        assert bits_per_byte(model, windows, batch=batch) == pytest.approx(expected, rel=1e-5)


def test_greedy_generation_is_the_argmax_of_the_full_forward() -> None:
    model, prompt = StandIn(seed=5), b"a prompt that is longer than nothing"
    out = bytes(generate(model, prompt, 40, Sampling(temperature=0)))
    whole, _ = model(torch.tensor([list(prompt + out)]))
    assert list(out) == whole[0, len(prompt) - 1 : -1].argmax(-1).tolist()


@pytest.mark.parametrize("name", ["gated_deltanet", "hope_tiny"])
def test_generation_runs_at_constant_memory(name: str) -> None:
    """What a recurrent model carries from byte to byte does not grow."""
    model = nldsl.compile(name, dim=16, depth=1, heads=2)
    sizes, forward = [], model.forward

    def measured(*inputs: object) -> tuple[torch.Tensor, nldsl.State]:
        logits, state = forward(*inputs)
        sizes.append(sum(t.numel() for t in state.tensors().values()))
        return logits, state

    model.forward = measured
    assert len(list(generate(model, b"start", 80, Sampling()))) == 80
    assert len(sizes) == 80 and sizes[-1] == sizes[40] == sizes[20]


def test_generation_repeats_with_its_seed() -> None:
    model = StandIn()

    def run(seed: int) -> bytes:
        return bytes(generate(model, b"", 30, Sampling(seed=seed)))

    assert run(1) == run(1) != run(2)


def test_draw_keeps_what_it_may() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    generator = torch.Generator().manual_seed(0)

    def seen(**options: float) -> Counter[int]:
        return Counter(draw(logits, Sampling(**options), generator) for _ in range(2000))

    assert set(seen(top_k=2)) == {0, 1}
    assert (
        set(seen(top_p=0.79)) == {0, 1}
        and set(seen(top_p=0.81)) == {0, 1, 2}
        and set(seen(top_p=1e-6)) == {0}
    )
    everything = seen()
    assert abs(everything[0] / 2000 - 0.5) < 0.05 and abs(everything[3] / 2000 - 0.05) < 0.02
    assert seen(temperature=0.2)[0] > everything[0]


@pytest.mark.parametrize("options", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.5}])
def test_sampling_refuses_numbers_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Sampling(**options)
