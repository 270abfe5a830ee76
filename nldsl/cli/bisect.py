"""`nldsl bisect`: the first token and level at which two forms, or two specifications, differ."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nldsl.catalog.forms import FORMS
from nldsl.cli.common import SetOption, parse_settings, print_json
from nldsl.cli.diff import with_settings
from nldsl.cli.guard import FINDINGS, CommandError
from nldsl.cli.report import print_findings
from nldsl.diagnostics import SpecError
from nldsl.spec.program import Program


def command(
    first: Annotated[str, typer.Argument(help="A name, a file, or `name@dim=64,depth=2`; `-` is stdin.")],
    second: Annotated[str | None, typer.Argument(help="Another; left out: two forms of the first.")] = None,
    forms: Annotated[
        str | None,
        typer.Option(help=f"Two of {', '.join(FORMS)}; interpreter,compiled for one specification."),
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, max=2000, help="How many tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of parameters and inputs.")] = 0,
    block: Annotated[str | None, typer.Option(help="Look at this block instead of the model.")] = None,
    settings: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Find the first token, level and statement where two forms or two specifications differ.

    On small twins, with the same input and, by their paths, the same parameters.  Leaves with 0 if there is
    no difference, 1 if there is one, 2 if they cannot be held beside each other.
    """
    from nldsl.certify.bisect import BisectError, bisect

    chosen = _forms(forms, second is None)
    shared: dict[str, Any] = dict(parse_settings(settings))
    asked = [first, first if second is None else second]
    try:
        programs = [_opened(name, block, shared) for name in asked]
        labels = [f"{n} ({f})" for n, f in zip(asked, chosen, strict=True)]
        names = (chosen[0], chosen[1]) if second is None else (labels[0], labels[1])
        found = bisect(programs[0], programs[1], chosen, tokens=tokens, seed=seed, names=names)
    except SpecError as wrong:
        print_findings(wrong.diagnostics)
        raise typer.Exit(2) from wrong
    except BisectError as wrong:
        raise CommandError(
            "NL1033",
            str(wrong),
            "`nldsl explain` says which form a program has, `nldsl diff` how two differ",
        ) from wrong
    if as_json:
        print_json(found.to_json())
    else:
        print(found.text())
    if found.first is not None:
        raise typer.Exit(FINDINGS)


def _opened(name: str, block: str | None, shared: dict[str, Any]) -> Program:
    from nldsl.certify.bisect import shortened
    from nldsl.certify.shrink import shrink

    source, arguments = with_settings(name, shared)
    return shortened(shrink(source, block, arguments).program)


def _forms(text: str | None, one: bool) -> tuple[str, str]:
    if text is None:
        return ("interpreter", "compiled") if one else ("interpreter", "interpreter")
    found = [part.strip() for part in text.split(",")]
    if len(found) != 2 or any(f not in FORMS for f in found) or (one and found[0] == found[1]):
        raise CommandError(
            "NL1032", f"`--forms {text}` does not name two forms", f"two of {', '.join(FORMS)}, with a comma"
        )
    return found[0], found[1]
