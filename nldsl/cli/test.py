"""`nldsl test`: property tests of a specification, and the smallest program that fails one."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nldsl.cli.common import (
    SetOption,
    emit_text,
    parse_settings,
    print_json,
    refuse_given,
    spec_source,
    write_atomic,
    wrote,
)
from nldsl.cli.guard import FINDINGS, CommandError

if TYPE_CHECKING:
    from nldsl.certify.cases import Case, FailedError
    from nldsl.certify.hunt import Outcome
    from nldsl.certify.reduce import Smallest
    from nldsl.certify.tested import Tested


def command(
    context: typer.Context,
    spec: Annotated[str, typer.Argument(help="A library name or a file; `-` is stdin.")],
    examples: Annotated[int, typer.Option(min=1, max=10_000, help="Cases of each property.")] = 20,
    properties: Annotated[
        list[str] | None, typer.Option("--property", help="Only this one; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="What the cases are drawn from.")] = 0,
    case: Annotated[str | None, typer.Option(help="Try exactly this case, as a report wrote it.")] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write the smallest program that fails here.")
    ] = None,
    write: Annotated[
        str | None, typer.Option(help="Write the tests as a pytest file here, and run nothing.")
    ] = None,
    block: Annotated[str | None, typer.Option(help="Test this block instead of the model.")] = None,
    settings: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Test what must hold of a specification at random sizes, lengths, splits, masks and parameters.

    A failure is made small: the case, then the program.  Leaves with 1 if a property does not hold.
    """
    from nldsl.certify.tested import Tested

    if write is not None:
        refuse_given(context, ("case", "output", "as_json"), "is for a run, and `--write` runs nothing")
    if case is not None:
        refuse_given(
            context, ("examples", "seed", "output"), "is for drawn cases, and `--case` is one of its own"
        )
    arguments: dict[str, Any] = dict(parse_settings(settings))
    source = spec_source(spec)
    tested = Tested(source, block, arguments, exact=case is not None)
    names = _chosen(tested, properties)
    if write is not None:
        _write(spec, Path(write), block, arguments, names, examples, seed)
        return
    report = _Report(spec, tested, as_json)
    if case is not None:
        report.one(_case(case), names)
    else:
        report.hunted(names, examples, seed)
    report.finish(output)


def _chosen(tested: Tested, wanted: list[str] | None) -> tuple[str, ...]:
    from nldsl.certify.properties import PROPERTIES

    for name in wanted or ():
        if name not in tested.names:
            known = "of models that learn" if name in PROPERTIES else "one of these"
            raise CommandError(
                "NL1030", f"`{name}` is no property of this program", f"{known}: {', '.join(tested.names)}"
            )
    return tuple(n for n in tested.names if not wanted or n in wanted)


def _case(text: str) -> Case:
    from nldsl.certify.cases import Case

    try:
        return Case.from_json(json.loads(text))
    except (ValueError, TypeError, AttributeError) as wrong:
        raise CommandError(
            "NL1031", f"`--case` cannot be read: {wrong}", "give it as the report of `nldsl test` wrote it"
        ) from wrong


def _write(
    spec: str,
    target: Path,
    block: str | None,
    arguments: dict[str, Any],
    names: tuple[str, ...],
    examples: int,
    seed: int,
) -> None:
    from nldsl.certify.tested_file import tested_file

    if spec == "-":
        raise CommandError(
            "NL1022", "`--write` needs a file, found stdin", "write the specification to a file"
        )
    text = tested_file(spec, target, block, arguments, names, examples=examples, seed=seed)
    write_atomic(target, text, inputs=[spec])
    wrote(str(target))


@dataclass
class _Failure:
    failed: FailedError
    smallest: Smallest | None


class _Report:
    """What came out, printed as it comes, or as JSON at the end."""

    def __init__(self, spec: str, tested: Tested, as_json: bool) -> None:
        self.spec, self.tested, self.as_json = spec, tested, as_json
        self.rows: list[dict[str, Any]] = []
        self.failures: list[_Failure] = []

    def hunted(self, names: tuple[str, ...], examples: int, seed: int) -> None:
        """Every property on drawn cases; the first failure of each is made small."""
        try:
            from nldsl.certify.hunt import hunt_all
        except ImportError as missing:
            raise CommandError(
                "NL1007", "drawing cases needs hypothesis", "pip install 'nldsl[test]'"
            ) from missing
        for outcome in hunt_all(self.tested, names, examples, seed):
            self.add(outcome)

    def one(self, case: Case, names: tuple[str, ...]) -> None:
        """One case, as it was reported."""
        from nldsl.certify.cases import FailedError, UnfitError

        for name in names:
            failed = None
            try:
                self.tested.check(name, case)
            except FailedError as found:
                failed = found
            except UnfitError as wrong:
                raise CommandError(
                    "NL1031", f"`--case` does not fit: {wrong}", "is the program another one?"
                ) from wrong
            self.row(name, 1, failed, None)

    def add(self, outcome: Outcome) -> None:
        """One property with all its cases."""
        from nldsl.certify.reduce import reduce

        smallest = None
        if outcome.failed is not None:
            print(f"{outcome.name} fails: making it small", file=sys.stderr)
            smallest = reduce(self.tested, outcome.failed)
        self.row(outcome.name, outcome.cases, outcome.failed, smallest)

    def row(self, name: str, cases: int, failed: FailedError | None, smallest: Smallest | None) -> None:
        """Print and keep one property."""
        from nldsl.certify.properties import PROPERTIES

        text = (PROPERTIES[name].check.__doc__ or "").split(".\n")[0].strip().rstrip(".")
        if not self.as_json:
            mark = "ok  " if failed is None else "FAIL"
            print(f"{mark} {name:<12} {cases:>4} cases  {' '.join(text.split())}")
        self.rows.append(
            {"property": name, "cases": cases, "passed": failed is None} | _told(failed, smallest)
        )
        if failed is not None:
            self.failures.append(_Failure(failed, smallest))

    def finish(self, output: str | None) -> None:
        """The failures in full; leaves with 1 if there are some."""
        if self.as_json:
            print_json({"spec": self.spec, "passed": not self.failures, "properties": self.rows})
        else:
            for failure in self.failures:
                print("\n".join(["", *_failure(self.spec, failure, output)]))
        small = next((f.smallest for f in self.failures if f.smallest is not None), None)
        if output is not None and small is not None:
            emit_text(small.text, output, inputs=[self.spec])
        if self.failures:
            raise typer.Exit(FINDINGS)


def _told(failed: FailedError | None, smallest: Smallest | None) -> dict[str, Any]:
    """A failure as data."""
    if failed is None:
        return {}
    data: dict[str, Any] = {"case": failed.case.to_json(), "found": failed.told}
    if smallest is not None:
        data["smallest"] = {
            "text": smallest.text,
            "block": smallest.block,
            "arguments": dict(smallest.arguments),
            "case": smallest.failed.case.to_json(),
            "found": smallest.failed.told,
            "statements": [smallest.before, smallest.after],
        }
    return data


def _failure(spec: str, failure: _Failure, output: str | None) -> Iterable[str]:
    failed, small = failure.failed, failure.smallest
    yield f"{failed.name}: {failed.told}"
    yield f"  in the case {failed.case.text()}"
    if small is None:
        return
    yield f"  smallest program that fails ({small.before} statements in the file, {small.after} left):"
    yield ""
    yield from (f"    {line}" for line in small.text.rstrip().splitlines())
    yield ""
    yield f"  there: {small.failed.told}, {small.failed.case.text()}"
    given = "".join(f" --set {n}={v}" for n, v in small.arguments)
    where = f" --block {small.block}" if small.block else ""
    file = output or "smallest.nl"
    data = json.dumps(small.failed.case.to_json())
    yield f"  again: nldsl test {file}{where}{given} --property {failed.name} --case {shlex.quote(data)}"
    if output is None:
        yield f"  (`-o {file}` writes the program; `nldsl bisect {spec}` looks for the first difference)"
