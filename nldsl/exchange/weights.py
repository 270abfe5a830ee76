"""The tensors of a model folder, under the names that they have in the specification."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from nldsl.exchange.architecture import Architecture
from nldsl.exchange.errors import refused

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Shards:
    """The tensors of the safetensors files of a folder, read when they are asked for.

    Errors: NL1105 for a folder without such files, or with damaged ones.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = dict(_places(folder))

    def get(self, *names: str) -> Tensor:
        """The tensor under the first of `names` that is there, in float32."""
        name = next((n for n in names if n in self.places), None)
        if name is None:
            raise refused("NL1105", f"`{self.folder}` has no weight `{names[0]}`")
        try:
            with safe_open(str(self.places[name]), framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as wrong:
            raise _damaged(self.places[name], wrong) from wrong
        return tensor.float()


def _places(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every tensor with the file it is in."""
    if (folder / INDEX).is_file():
        try:
            named = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            files = [folder / str(name) for name in dict.fromkeys(named.values())]
        except (ValueError, KeyError, TypeError, AttributeError) as wrong:
            raise _damaged(folder / INDEX, wrong) from wrong
        outside = next((path for path in files if path.resolve().parent != folder.resolve()), None)
        if outside is not None:
            raise refused("NL1105", f"`{folder / INDEX}` names a file outside the folder: `{outside}`")
    elif (folder / SINGLE).is_file():
        files = [folder / SINGLE]
    else:
        pickled = next(folder.glob("*.bin"), None)
        help = f"`{pickled.name}` is a pickle, which can run code: save it as safetensors" if pickled else ""
        raise refused("NL1105", f"`{folder}` has no `{SINGLE}`", help=help)
    for path in files:
        try:
            with safe_open(str(path), framework="pt") as file:
                yield from ((name, path) for name in file.keys())
        except (SafetensorError, OSError) as wrong:
            raise _damaged(path, wrong) from wrong


def _damaged(path: Path, wrong: Exception) -> Exception:
    return refused("NL1105", f"`{path}` cannot be read: {wrong}")


def named_weights(a: Architecture, shards: Shards, *, unrolled: bool, stacked: bool) -> dict[str, Tensor]:
    """The weights by their paths in the specification.

    A layer is a turn of `repeat`, or of `for` if `unrolled`; `stacked` feed-forward blocks are memories.
    """
    found = dict(_ends(a, shards))
    for i in range(a.depth):
        layer = _gpt2_layer(a, shards, i) if a.family == "gpt2" else _llama_layer(a, shards, i)
        for name, tensor in layer:
            path = _in_a_level(name) if stacked else name
            first, dot, rest = path.partition(".")
            found[f"{first}[{i}]{dot}{rest}" if unrolled else f"blocks[{i}].{path}"] = tensor
    return found


def _in_a_level(name: str) -> str:
    """Where a weight of the feed-forward block and of the norm before it lies once the block is a memory."""
    part, _, rest = name.partition(".")
    if part == "feed_forward":
        variable, _, kind = rest.replace(".linear.", ".").partition(".")
        return f"feed_forward_level.F.{variable}_{'linear' if kind == 'weight' else kind}"
    if part == "x" and "_2." in rest:
        return f"feed_forward_level.out.{rest.replace('_2.', '.')}"
    return name


Named = Iterator[tuple[str, Tensor]]


def _ends(a: Architecture, shards: Shards) -> Named:
    """What stands before the first layer and behind the last."""
    tables = ("wte.weight",) if a.family == "gpt2" else ("embed_tokens.weight",)
    prefixes = ("transformer.", "") if a.family == "gpt2" else ("model.", "")
    named = {kind: tuple(f"{p}{kind}" for p in prefixes) for kind in (*tables, "wpe.weight", "norm.weight")}
    table = shards.get(*named[tables[0]])
    yield ("E.weight.weight" if a.tied else "x.embed.weight"), table
    if not a.tied:
        yield "out.head.weight", shards.get("lm_head.weight")
    if a.positions:
        yield "x.add_position.weight", shards.get(*named["wpe.weight"])
    if a.family != "gpt2":
        yield "out.norm.weight", shards.get(*named["norm.weight"])
        return
    for kind in ("weight", "bias"):
        yield f"out.layernorm.{kind}", shards.get(*(f"{p}ln_f.{kind}" for p in prefixes))


def _llama_layer(a: Architecture, shards: Shards, i: int) -> Named:
    def get(name: str) -> Tensor:
        return shards.get(f"model.layers.{i}.{name}", f"layers.{i}.{name}")

    yield "x.norm.weight", get("input_layernorm.weight")
    yield "x.norm_2.weight", get("post_attention_layernorm.weight")
    inner, behind, forward = a.bias
    into = "a" if a.activation == "gelu_tanh" else "g"
    layers = [("self_attention", part, f"self_attn.{part}_proj", inner) for part in ("q", "k", "v")]
    layers.append(("self_attention", "out", "self_attn.o_proj", behind))
    named = {into: "gate", "up": "up", "out": "down"}
    layers += [("feed_forward", part, f"mlp.{name}_proj", forward) for part, name in named.items()]
    for block, part, name, bias in layers:
        for kind in ("weight", "bias")[: 1 + bias]:
            yield f"{block}.{part}.linear.{kind}", get(f"{name}.{kind}")
    if a.query_norm:
        for part in ("q", "k"):
            yield f"self_attention.{part}.norm.weight", get(f"self_attn.{part}_norm.weight")


def _gpt2_layer(a: Architecture, shards: Shards, i: int) -> Named:
    """GPT-2 keeps its matrices with inputs first, and queries, keys and values in one."""

    def get(name: str) -> Tensor:
        return shards.get(f"transformer.h.{i}.{name}", f"h.{i}.{name}")

    into = "a" if a.activation == "gelu_tanh" else "g"
    for kind in ("weight", "bias"):
        yield f"x.layernorm.{kind}", get(f"ln_1.{kind}")
        yield f"x.layernorm_2.{kind}", get(f"ln_2.{kind}")
        joined = get(f"attn.c_attn.{kind}")
        for part, piece in zip("qkv", joined.split(a.dim, -1), strict=True):
            yield f"self_attention.{part}.linear.{kind}", piece.mT if kind == "weight" else piece
        named = {"self_attention.out": "attn.c_proj", f"feed_forward.{into}": "mlp.c_fc"}
        named["feed_forward.out"] = "mlp.c_proj"
        for path, name in named.items():
            tensor = get(f"{name}.{kind}")
            yield f"{path}.linear.{kind}", tensor.mT if kind == "weight" else tensor
