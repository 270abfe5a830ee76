"""`nldsl run RUN --online FILE`: read a stream and learn from it, every level at its clock."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from nldsl.cli.common import out, print_json, read_bytes, require_place
from nldsl.cli.guard import CommandError

if TYPE_CHECKING:
    from nldsl.evaluate import Segment
    from nldsl.runtime.model import Model


def command(
    run: Annotated[str, typer.Argument(help="Folder of a run of `nldsl train`.")],
    online: Annotated[str, typer.Option("--online", help="The stream: a file; `-` is stdin.")],
    segment: Annotated[int, typer.Option(min=2, help="Bytes of a segment of the report.")] = 1024,
    save: Annotated[str | None, typer.Option(help="Keep the state behind the stream here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Bits per byte of every segment before it is learnt, after it, and at the end of the stream.

    Each time a segment is read in a fresh context, so only what memories have learnt from the task counts.
    The run's weights stay what they are.
    """
    from nldsl.evaluate import learn_online
    from nldsl.runtime.allocator import keep_freed_memory
    from nldsl.train import load_run

    if save is not None:
        require_place(save)
    keep_freed_memory()
    loaded = load_run(run)
    model, tokens = loaded.session().model, loaded.tokens
    require_task_memories(model)
    text = read_bytes(online)
    if len(text) < 2:
        raise CommandError("NL1028", f"`{online}` has {len(text)} bytes, and a stream needs at least 2")
    if not as_json:
        out().print(f"{'bytes':>16}  {'before':>7} {'after':>7} {'gained':>7}   bits per byte", style="dim")
    found, session = learn_online(model, text, segment, _nothing if as_json else _line, tokens)
    if save is not None:
        session.save(save)
    if as_json:
        print_json([{**asdict(s), "gained": s.gained, "forgotten": s.forgotten} for s in found])
        return
    forgotten = sum(s.forgotten * s.bytes for s in found) / sum(s.bytes for s in found)
    gained = sum(s.gained * s.bytes for s in found) / sum(s.bytes for s in found)
    out().print(f"gained {gained:+.4f} while it was read, forgotten by the end {forgotten:+.4f}")
    out().print(f"the session has {session.bytes:,} bytes", style="dim")


def require_task_memories(model: Model) -> None:
    """Raise NL1027 for a model that could not learn from what it reads."""
    if not model.task_memories():
        raise CommandError(
            "NL1027",
            f"nothing in `{model.name}` learns from the task",
            "a memory does with `F minimizes task by gd(lr = 1e-3)`: see the block `cms`",
        )


def _nothing(_: Segment) -> None:
    return None


def _line(s: Segment) -> None:
    place = f"{s.first:,} - {s.first + s.bytes:,}"
    out().print(f"{place:>16}  {s.before:7.4f} {s.after:7.4f} {s.gained:+7.4f}")
