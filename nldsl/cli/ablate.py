"""`nldsl ablate`: the ablations of a model, what each changes, as files, verified."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from nldsl.cli.common import SetOption, err, out, parse_settings, print_json, write_atomic, wrote
from nldsl.cli.guard import CommandError
from nldsl.cli.settings import VERIFYING
from nldsl.diagnostics import did_you_mean
from nldsl.view.ablations import TABLES, Ablation, ablations, source_of


def command(
    model: Annotated[str, typer.Argument(help="The model whose ablations are listed, e.g. `hope`.")],
    settings: SetOption = None,
    write: Annotated[
        str | None, typer.Option("--write", help="Write each as a file into this folder.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare each with the interpreter; takes minutes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows and changes as JSON.")] = False,
) -> None:
    """List the ablations of a model: what each changes, computed by comparing specifications.

    Leaves with 1 if `--verify` finds one that differs.
    """
    if model not in TABLES:
        hint = did_you_mean(model, list(TABLES)) or f"there are tables for {', '.join(TABLES)}"
        raise CommandError("NL1023", f"no table of ablations for `{model}`", hint)
    rows = ablations(model, **parse_settings(settings))
    if as_json:
        print_json([row.to_json() for row in rows])
    else:
        _print(rows)
    specs = [row.row.spec for row in rows if row.row.spec and row.row.spec != model]
    if write is not None:
        _write(specs, Path(write))
    if verify and not _verified([model, *specs], parse_settings(settings, VERIFYING)):
        raise typer.Exit(1)


def _print(rows: Sequence[Ablation]) -> None:
    console = out()
    width = max(len(row.row.title) for row in rows)
    names = max(len(row.row.spec) for row in rows)
    head = f"{'':<{width}}  {'specification':<{names}}  {'parameters':>11}  paper: perplexity, accuracy"
    console.print(Text(head, style="dim"))
    base = rows[0].parameters or 0
    for ablation in rows:
        row = ablation.row
        count = f"{ablation.parameters:,}" if ablation.parameters is not None else ""
        style = "bold" if ablation.parameters != base else ""
        console.print(
            Text.assemble(
                (f"{row.title:<{width}}", "bold cyan"),
                f"  {row.spec or '-':<{names}}",
                (f"  {count:>11}", style),
                (f"  {row.perplexity:.2f}, {row.accuracy:.1f}", "dim"),
            )
        )
        for line in (*ablation.summary, *([row.note] if row.note else [])):
            console.print(Padding(Text(line), (0, 0, 0, 4), expand=False))


def _write(specs: Sequence[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for spec in specs:
        name, text = source_of(spec)
        write_atomic(folder / name, text)
        wrote(str(folder / name))


def _verified(specs: Sequence[str], arguments: dict[str, Any]) -> bool:
    """Whether all agree with the interpreter; torch is loaded here and not before."""
    check = import_module("nldsl.certify").verify
    passed = True
    for spec in specs:
        certificate = check(spec, **arguments)
        passed = passed and certificate.passed
        word = "agrees with the interpreter" if certificate.passed else "DIFFERS from the interpreter"
        err().print(f"{spec}: {word}")
        if not certificate.passed:
            print(certificate.text())
    return passed
