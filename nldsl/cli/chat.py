"""`nldsl chat RUN`: lines in, lines out, one session that goes on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nldsl.cli.common import require_place
from nldsl.cli.guard import CommandError
from nldsl.cli.run import require_task_memories

if TYPE_CHECKING:
    from nldsl.evaluate import Sampling, Session


def command(
    run: Annotated[str, typer.Argument(help="Folder of a run of `nldsl train`.")],
    learn: Annotated[
        bool, typer.Option("--learn", help="What is said changes the memories that learn from the task.")
    ] = False,
    count: Annotated[int, typer.Option("--bytes", "-n", min=1, help="Most bytes of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest byte.")] = 0.8,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    load: Annotated[str | None, typer.Option(help="Go on from a state that `--save` wrote.")] = None,
    save: Annotated[str | None, typer.Option(help="Keep the state here at the end.")] = None,
) -> None:
    """Every line from stdin is read, and answered up to the end of a line.  Ctrl-D ends it."""
    from nldsl.evaluate import Sampling
    from nldsl.runtime.state import StateError
    from nldsl.train import load_run

    if save is not None:
        require_place(save)
    session = load_run(run).session(learn=learn)
    if learn:
        require_task_memories(session.model)
    if load is not None:
        try:
            session.load(load)
        except StateError as wrong:
            raise CommandError("NL1029", f"`{load}` cannot be gone on from: {wrong}") from None
    asked = sys.stdin.isatty()
    if asked:
        typer.echo(f"{session.model.name}: a session of {session.bytes:,} bytes; Ctrl-D ends it", err=True)
    turn = 0
    while True:
        if asked:
            typer.echo("> ", nl=False, err=True)
        line = sys.stdin.buffer.readline()
        if not line:
            break
        session.feed(line)
        _answer(session, count, Sampling(temperature=temperature, seed=seed + turn))
        turn += 1
    if save is not None:
        session.save(save)


def _answer(session: Session, count: int, sampling: Sampling) -> None:
    stream = sys.stdout.buffer
    decoder = session.tokens.stream()
    for token in session.generate(count, sampling):
        shown, end, _ = decoder.add(token).partition(b"\n")
        stream.write(shown)
        if end:
            break
        stream.flush()
    stream.write(b"\n")
    stream.flush()
