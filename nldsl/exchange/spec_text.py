"""The specification of an architecture, as a person would write it."""

from __future__ import annotations

from nldsl.exchange.architecture import Architecture, Stretch
from nldsl.exchange.stack import Stack

TITLES = {
    "gpt2": "GPT-2 (Radford et al. 2019)",
    "llama": "Llama (Touvron et al. 2023), arXiv 2302.13971",
    "mistral": "Mistral (Jiang et al. 2023), arXiv 2310.06825",
    "qwen2": "Qwen2 (Yang et al. 2024), arXiv 2407.10671",
    "qwen3": "Qwen3 (Yang et al. 2025), arXiv 2505.09388",
}
_GELU_TANH = "0.5 * {0} * (1 + tanh(0.7978845608028654 * ({0} + 0.044715 * {0} ** 3)))"
"""sqrt(2 / pi) and the tanh form of the Gaussian error linear unit."""


def spec_text(name: str, a: Architecture, stack: Stack | None = None) -> str:
    """The specification `name`: model, blocks, and a `train` section to go on with.

    With a `stack`, every feed-forward block is a memory that learns the task, on its own clock (Sec. 7.3).
    """
    parts = [_head(a, stack), _model(name, a, stack), _attention(a)]
    if stack is not None:
        parts.append(_level(a, stack))
    parts += [_feed_forward(a, "block" if stack is None else "map"), _train(name)]
    return "\n\n".join(parts) + "\n"


def _head(a: Architecture, stack: Stack | None) -> str:
    told = f"# {TITLES[a.family]}, brought in from transformers with its weights"
    if a.dropout:
        told += f"\n# Its training dropped out a share of {a.dropout:g}; here it has no form."
    if stack is not None:
        told += "\n# Paper: Sec. 7.3: feed-forward blocks are levels of a continuum memory system, Eq. 70-71."
    return told


def unrolled(a: Architecture, stack: Stack | None) -> bool:
    """Whether layers differ, so that each is a turn of `for`."""
    return stack is not None or len(set(a.windows)) > 1


def _model(name: str, a: Architecture, stack: Stack | None) -> str:
    varied = f"depth = {a.depth}"
    if stack is not None:
        varied = f"chunks = {list(stack.clocks(a.depth))}, rate = {stack.rate!r}"
    elif unrolled(a, stack):
        varied = f"windows = {list(a.windows)}"
    lines = [f"model {name}(tokens, vocab = {a.vocab}, dim = {a.dim}, {varied}) {{"]
    if a.tied:
        lines.append("  E = weight(vocab, dim)")
    embedded = "embed(tokens, E)" if a.tied else "embed(tokens, vocab, dim)"
    lines.append(f"  x = add_position({embedded}, {a.positions})" if a.positions else f"  x = {embedded}")
    lines += _layers(a, stack)
    last = _norm("x", a)
    lines += [f"  return E @ {last}" if a.tied else f"  return head({last}, vocab)", "}"]
    return "\n".join(lines)


def _layers(a: Architecture, stack: Stack | None) -> list[str]:
    """A `repeat` where all layers are alike, else one turn of `for` for each layer."""
    attention = f"x = x + self_attention({_norm('x', a)}"
    forward = f"    x = x + feed_forward({_norm('x', a)})"
    same = len(set(a.windows)) == 1
    window = f", window = {a.windows[0]}" if a.windows[0] else ""
    if stack is not None:
        forward = "    x = feed_forward_level(x, chunk, rate)"
        turns = [f"    {attention}{window})"] if same else _by_layer(a, attention)
        return ["  for chunk, i in chunks {", *turns, forward, "  }"]
    if same:
        return ["  repeat depth {", f"    {attention}{window})", forward, "  }"]
    return ["  for window, i in windows {", f"    {attention}, window = window)", forward, "  }"]


def _by_layer(a: Architecture, attention: str) -> list[str]:
    """Attention of layers whose windows differ, where the turns of `for` are over clocks."""
    wide = [i for i, window in enumerate(a.windows) if window]
    width, first = max(a.windows), wide[0]
    if a.windows == (0,) * first + (width,) * (a.depth - first):
        return [f"    if i < {first} {{ {attention}) }} else {{ {attention}, window = {width}) }}"]
    return [f"    if i == {i} {{ {attention}, window = {w}) }}" for i, w in enumerate(a.windows)]


def _norm(x: str, a: Architecture) -> str:
    return f"{'layernorm' if a.centred else 'norm'}({x}, {a.eps!r})"


def _attention(a: Architecture) -> str:
    bias, behind, _ = (", bias = true" if b else "" for b in a.bias)
    grouped = "heads // groups" if a.groups > 1 else "heads"
    kept = f"{grouped} * {a.size}"
    given = f"heads = {a.heads}, " + (f"groups = {a.groups}, " if a.groups > 1 else "") + "window = 0"
    query = f"split(linear(x, heads * {a.size}{bias}), heads)"
    key = f"split(linear(x, {kept}{bias}), {grouped})"
    if a.query_norm:
        query, key = f"norm({query}, {a.eps!r})", f"norm({key}, {a.eps!r})"
    if not a.positions:
        query, key = (_turned(z, a.theta, a.stretch) for z in (query, key))
    lines = [
        f"block self_attention(x, {given}) {{",
        f"  memory A = softmax(window = window) per head({grouped})",
        "",
        f"  q = {query}",
        f"  k = {key}",
        f"  v = split(linear(x, {kept}{bias}), {grouped})",
        "",
        "  A[k] <- v",
        f"  return linear(merge(A[q]), dim(x){behind})",
        "}",
    ]
    return "\n".join(lines)


def _turned(z: str, theta: float, stretch: Stretch | None) -> str:
    if stretch is None:
        return f"rope({z}, {theta!r})"
    told = f"factor = {stretch.factor!r}"
    if stretch.original:
        told += f", low = {stretch.low!r}, high = {stretch.high!r}, original = {float(stretch.original)!r}"
    return f"stretched_rope({z}, {theta!r}, {told})"


def _level(a: Architecture, stack: Stack) -> str:
    lines = [
        f"block feed_forward_level(x, chunk = {stack.chunks[0]}, rate = {stack.rate!r}) {{",
        f"  level f every chunk tokens {{ memory F = feed_forward({a.hidden}) }}",
        "  F minimizes task by gd(lr = rate)",
        f"  return x + F[{_norm('x', a)}]",
        "}",
    ]
    return "\n".join(lines)


def _feed_forward(a: Architecture, kind: str) -> str:
    bias = ", bias = true" if a.bias[2] else ""
    lines = [f"{kind} feed_forward(z, hidden = {a.hidden}) {{"]
    into = f"linear(z, hidden{bias})"
    if a.activation == "gelu_tanh":
        lines += [f"  a = {into}", f"  g = {_GELU_TANH.format('a')}"]
    else:
        lines.append(f"  g = {a.activation}({into})")
    if a.gated:
        lines.append(f"  up = {into}")
    lines += [f"  return linear({'g * up' if a.gated else 'g'}, dim(z){bias})", "}"]
    return "\n".join(lines)


def _train(name: str) -> str:
    return "\n".join(
        [
            f"train {name} {{",
            "  task next_token",
            "  level pretraining every 1 step {",
            "    matrices, embeddings, head, norms, rest by adamw(lr = 1e-5)",
            "  }",
            "}",
        ]
    )
