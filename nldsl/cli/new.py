"""`nldsl new`: a starter specification that checks, compiles and trains as it is."""

from __future__ import annotations

import keyword
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nldsl.cli.common import emit_text
from nldsl.cli.guard import CommandError
from nldsl.diagnostics import DiagnosticBag
from nldsl.source import SourceFile
from nldsl.syntax import format_text, is_yaml, parse, to_yaml


class Kind(StrEnum):
    """What to start with."""

    block = "block"
    model = "model"


_BLOCK = """\
# {name}: a layer with one memory per head, written by the delta rule
block {name}(x, heads = 4, window = 4) {{
  level context every 1 token {{ memory S = matrix() per head init zero }}

  q = l2norm(split(silu(conv(linear(x), window)), heads))
  k = l2norm(split(silu(conv(linear(x), window)), heads))
  v = silu(conv(linear(x), window))
  beta = sigmoid(linear(x, heads))
  alpha = exp(-softplus(linear(x, heads)))

  # Retention: how much of the memory stays.
  S *= alpha
  # One step on the inner objective per token.
  S[k] <- v  minimize l2  by gd(lr = beta)
  return linear(merge(norm(S[q])) * silu(linear(x)))
}}
"""

_MODEL = """\

model {model}(tokens, vocab = 256, dim = 64, depth = 2, heads = 4) {{
  x = embed(tokens, vocab, dim)
  repeat depth {{
    x = x + {name}(norm(x), heads)
    x = x + swiglu(norm(x))
  }}
  return head(norm(x), vocab)
}}

train {model} {{
  task next_token
  level pretraining every 1 step {{
    matrices by muon(lr = 2e-2)
    embeddings, head, norms, rest by adamw(lr = 3e-4)
  }}
}}
"""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")


def command(
    name: Annotated[str, typer.Argument(help="The name of the block or model; also of the file.")],
    kind: Annotated[Kind, typer.Option(help="A layer alone, or a model with training.")] = Kind.block,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="The file, text or YAML by its ending; else NAME.nl.")
    ] = None,
) -> None:
    """Write a starter specification.  An existing file is never overwritten."""
    if not _NAME.match(name) or keyword.iskeyword(name):
        raise CommandError(
            "NL1017", f"`{name[:64]}` cannot be a name", "letters, digits and `_`, at most 64 of them"
        )
    target = output or f"{name}.nl"
    if target != "-" and Path(target).exists():
        raise CommandError("NL1018", f"`{target}` exists already", "choose another name, or -o FILE")
    text = starter(name, kind)
    if is_yaml(target):
        text = to_yaml(parse(SourceFile(f"{name}.nl", text), DiagnosticBag()))
    emit_text(text, target)


def starter(name: str, kind: Kind) -> str:
    """The text of a starter specification.

    Example:
        >>> starter("my_layer", Kind.block).splitlines()[1]
        'block my_layer(x, heads = 4, window = 4) {'
    """
    if kind is Kind.block:
        text = _BLOCK.format(name=name)
    else:
        text = _BLOCK.format(name=f"{name}_layer") + _MODEL.format(name=f"{name}_layer", model=name)
    return format_text(SourceFile(f"{name}.nl", text))
