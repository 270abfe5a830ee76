"""`nldsl generate RUN`: go on from a prompt, byte by byte."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from nldsl.cli.common import read_text, refuse_given


def command(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="Folder of a run of `nldsl train`.")],
    prompt: Annotated[str, typer.Option(help="What to go on from; `-` reads it from stdin.")] = "",
    count: Annotated[
        int,
        typer.Option("--bytes", "-n", min=1, help="Bytes to generate; tokens, if it has a tokenizer."),
    ] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest byte.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Keep the k likeliest bytes; 0 keeps all.")] = 0,
    top_p: Annotated[
        float, typer.Option(min=1e-6, max=1, help="Keep the likeliest bytes that reach this probability.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """Generate from a trained run; raw bytes on stdout, as they come.

    Memory does not grow with the number of bytes, unless the model has attention without a window.
    """
    from nldsl.evaluate import Sampling, generate
    from nldsl.evaluate.generate import START
    from nldsl.train import load_run

    if temperature == 0:
        refuse_given(
            context, ("top_k", "top_p", "seed"), "draws nothing: `--temperature 0` takes the likeliest byte"
        )
    text = read_text("-") if prompt == "-" else prompt
    loaded = load_run(run)
    loaded.require_tokens()
    tokens = loaded.tokens
    decoder, given = tokens.stream(), tokens.encode(os.fsencode(text) or START)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    sys.stdout.flush()
    stream = sys.stdout.buffer
    for token in generate(loaded.model, given, count, sampling, tokens.count):
        stream.write(decoder.add(token))
        stream.flush()
    if stream.isatty():
        stream.write(b"\n")
