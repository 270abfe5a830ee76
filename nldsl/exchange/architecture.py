"""What `config.json` of a model of transformers says, as far as it changes the numbers.

Nothing is guessed: a key that asks for what cannot be written in a specification is refused by its name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nldsl.diagnostics import SpecError
from nldsl.exchange.errors import refused

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""The names of transformers, and what they are called here."""


@dataclass(frozen=True)
class Stretch:
    """Rotary positions for longer contexts: frequencies divided by `factor`, all of them (`original` 0) or
    those whose wave is longer than `original / high` tokens, smoothly up to `original / low`.
    """

    factor: float
    low: float = 0.0
    high: float = 0.0
    original: int = 0


@dataclass(frozen=True)
class Architecture:
    """A decoder of attention and feed-forward blocks with norms before them.

    `size` are the channels of a head, `windows` the window of each layer (0: all), `positions` the rows of
    a learned table (0: rotary positions of base `theta`), `centred` norms subtract the mean and have an
    offset, a `gated` feed-forward block has two input layers.
    """

    family: str
    vocab: int
    dim: int
    depth: int
    heads: int
    groups: int
    size: int
    hidden: int
    activation: str
    eps: float
    windows: tuple[int, ...]
    theta: float = 10000.0
    stretch: Stretch | None = None
    positions: int = 0
    tied: bool = False
    gated: bool = True
    centred: bool = False
    query_norm: bool = False
    bias: tuple[bool, bool, bool] = (False, False, False)
    """Of queries, keys and values; of the layer behind attention; of the feed-forward block."""
    dropout: float = 0.0
    """The largest share that training dropped: said in the specification, not carried."""


class Config:
    """A `config.json` that is asked key by key; the findings name the key and the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.body: Any = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as wrong:
            raise refused("NL1105", f"`{path}` is no JSON: {wrong}") from wrong
        if not isinstance(self.body, dict):
            raise refused("NL1105", f"`{path}` holds no object")

    def refuse(self, key: str, value: object, expected: str) -> SpecError:
        """NL1106: what a key asks for and what can be brought in."""
        return refused(
            "NL1106", f"`{key}` is `{value}` in `{self.path}`", notes=(f"what can be brought in: {expected}",)
        )

    def whole(self, *keys: str, default: int | None = None) -> int:
        """The positive whole number under the first of `keys` that is there."""
        found = next((self.body[key] for key in keys if self.body.get(key) is not None), default)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise self.refuse(keys[0], found, "a positive whole number")
        return found

    def number(self, key: str, default: float, body: Mapping[str, Any] | None = None) -> float:
        """The positive number under `key`."""
        found = (self.body if body is None else body).get(key)
        found = default if found is None else found
        good = isinstance(found, int | float) and not isinstance(found, bool)
        if not good or not 0 < found < math.inf:
            raise self.refuse(key, found, "a positive number")
        return float(found)

    def largest(self, *keys: str) -> float:
        """The largest number under `keys`."""
        found = [self.body.get(key) for key in keys]
        return max((float(n) for n in found if isinstance(n, int | float)), default=0.0)

    def flag(self, key: str, default: bool = False) -> bool:
        """The truth under `key`."""
        found = self.body.get(key, default)
        if not isinstance(found, bool):
            raise self.refuse(key, found, "`true` or `false`")
        return found

    def must_be(self, key: str, expected: Any, default: Any) -> None:
        """Refuse anything but `expected` under `key`; a key that is not there has its `default`."""
        found = self.body.get(key, default)
        if found != expected:
            raise self.refuse(key, found, f"`{expected}`")

    def activation(self, key: str, default: str) -> str:
        """The activation under `key`."""
        found = self.body.get(key) or default
        if found not in ACTIVATIONS:
            raise self.refuse(key, found, ", ".join(f"`{name}`" for name in ACTIVATIONS))
        return ACTIVATIONS[found]


def read_architecture(folder: Path) -> Architecture:
    """The architecture of a model folder.

    Errors: NL1105 (no model folder, or a damaged one), NL1106 (something that cannot be brought in).
    """
    path = folder / "config.json"
    if not path.is_file():
        raise refused(
            "NL1105",
            f"`{folder}` is no model of transformers: it has no `config.json`",
            help="give a local folder, as `save_pretrained` writes it; nothing is downloaded",
        )
    config = Config(path)
    family = config.body.get("model_type")
    if family not in FAMILIES:
        raise config.refuse("model_type", family, ", ".join(f"`{name}`" for name in FAMILIES))
    if config.body.get("quantization_config") is not None:
        raise config.refuse("quantization_config", "...", "weights as they are, not quantised")
    return _gpt2(config) if family == "gpt2" else _llama(config, str(family))


def _gpt2(config: Config) -> Architecture:
    config.must_be("scale_attn_weights", True, True)
    config.must_be("scale_attn_by_inverse_layer_idx", False, False)
    config.must_be("add_cross_attention", False, False)
    dim, heads = config.whole("n_embd", "hidden_size"), config.whole("n_head", "num_attention_heads")
    if dim % heads:
        raise config.refuse("n_head", heads, f"a divisor of `n_embd`, which is {dim}")
    depth = config.whole("n_layer", "num_hidden_layers")
    return Architecture(
        family="gpt2",
        vocab=config.whole("vocab_size"),
        dim=dim,
        depth=depth,
        heads=heads,
        groups=1,
        size=dim // heads,
        hidden=config.whole("n_inner", default=4 * dim),
        activation=config.activation("activation_function", "gelu_new"),
        eps=config.number("layer_norm_epsilon", 1e-5),
        windows=(0,) * depth,
        positions=config.whole("n_positions", "max_position_embeddings", default=1024),
        tied=config.flag("tie_word_embeddings", True),
        gated=False,
        centred=True,
        bias=(True, True, True),
        dropout=config.largest("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    )


def _llama(config: Config, family: str) -> Architecture:
    """Llama, and what differs from it by biases, norms of queries and keys, and windows."""
    config.must_be("pretraining_tp", 1, 1)
    dim, heads = config.whole("hidden_size"), config.whole("num_attention_heads")
    keys = config.whole("num_key_value_heads", default=heads)
    if heads % keys:
        raise config.refuse("num_key_value_heads", keys, f"a divisor of the number of heads, {heads}")
    size = config.whole("head_dim", default=128 if family == "qwen3" else max(1, dim // heads))
    if size % 2:
        raise config.refuse("head_dim", size, "an even number, for rotary positions")
    theta, stretch = _rotary(config)
    depth = config.whole("num_hidden_layers")
    attention_bias = config.flag("attention_bias") if family in ("llama", "qwen3") else family == "qwen2"
    behind = attention_bias and family != "qwen2"
    return Architecture(
        family=family,
        vocab=config.whole("vocab_size"),
        dim=dim,
        depth=depth,
        heads=heads,
        groups=heads // keys,
        size=size,
        hidden=config.whole("intermediate_size"),
        activation=config.activation("hidden_act", "silu"),
        eps=config.number("rms_norm_eps", 1e-6),
        windows=_windows(config, family, depth),
        theta=theta,
        stretch=stretch,
        tied=config.flag("tie_word_embeddings"),
        query_norm=family == "qwen3",
        bias=(attention_bias, behind, family == "llama" and config.flag("mlp_bias")),
        dropout=config.largest("attention_dropout"),
    )


def _windows(config: Config, family: str, depth: int) -> tuple[int, ...]:
    """The window of attention of each layer; 0 is all."""
    if family == "mistral":
        width = 0 if config.body.get("sliding_window") is None else config.whole("sliding_window")
        return (width,) * depth
    if family == "llama" or not config.flag("use_sliding_window"):
        return (0,) * depth
    width = 0 if config.body.get("sliding_window") is None else config.whole("sliding_window")
    first = config.body.get("max_window_layers", 28)
    given = config.body.get("layer_types")
    kinds = given or ["sliding_attention" if i >= first else "full_attention" for i in range(depth)]
    strange = next((kind for kind in kinds if kind not in ("sliding_attention", "full_attention")), None)
    if strange is not None or len(kinds) != depth:
        raise config.refuse("layer_types", strange or kinds, "`full_attention` or `sliding_attention`")
    return tuple(width if kind == "sliding_attention" else 0 for kind in kinds)


def _rotary(config: Config) -> tuple[float, Stretch | None]:
    """Base and stretching of rotary positions, as version 5 writes them or as version 4 did."""
    given = config.body.get("rope_parameters")
    key = "rope_scaling" if given is None else "rope_parameters"
    body = (given if given is not None else config.body.get("rope_scaling")) or {}
    if not isinstance(body, dict):
        raise config.refuse(key, body, "an object")
    theta = config.number("rope_theta", config.number("rope_theta", 10000.0), body)
    if body.get("partial_rotary_factor", config.body.get("partial_rotary_factor", 1.0)) != 1.0:
        raise config.refuse("partial_rotary_factor", body.get("partial_rotary_factor"), "`1.0`")
    kind = body.get("rope_type", body.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, Stretch(config.number("factor", 1.0, body))
    if kind != "llama3":
        raise config.refuse(f"{key}.rope_type", kind, "`default`, `linear`, `llama3`")
    low, high = (config.number(f"{name}_freq_factor", 1.0, body) for name in ("low", "high"))
    original = config.number("original_max_position_embeddings", 8192, body)
    if high <= low:
        raise config.refuse(f"{key}.high_freq_factor", high, f"more than `low_freq_factor`, which is {low:g}")
    return theta, Stretch(config.number("factor", 1.0, body), low, high, int(original))
