"""`nldsl verify`: the compiled form of a specification against the interpreter."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from nldsl.cli.common import (
    SetOption,
    err,
    json_text,
    parse_settings,
    print_json,
    spec_source,
    write_atomic,
    wrote,
)
from nldsl.cli.guard import CommandError
from nldsl.cli.settings import VERIFYING
from nldsl.graph import open_program
from nldsl.spec.program import GroupRule

if TYPE_CHECKING:
    from nldsl.certify import Certificate, RuleCertificate


class Backend(StrEnum):
    """Back ends of `torch.compile`, and C."""

    eager = "eager"
    aot_eager = "aot_eager"
    inductor = "inductor"
    native = "native"


Compile = Annotated[
    list[Backend] | None,
    typer.Option(
        "--compile", help="Also under `torch.compile` with this back end, or `native`; may be repeated."
    ),
]


def command(
    spec: Annotated[str, typer.Argument(help="A library name or a file; `-` is stdin.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write the certificate as JSON here.")
    ] = None,
    block: Annotated[str | None, typer.Option(help="Verify this block instead of the model.")] = None,
    settings: SetOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of parameters and inputs.")] = 0,
    rules: Annotated[
        bool, typer.Option("--rules", help="Verify the rules of the `train` section as optimizers.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="The original clocks, `forward` alone; sizes stay small.")
    ] = False,
    long: Annotated[
        bool,
        typer.Option("--long", help="Also thousands of tokens: rounding, memories bounded and alive."),
    ] = False,
    compiled: Compile = None,
    export: Annotated[bool, typer.Option("--export", help="Also through `torch.export`.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Compare the compiled form with the interpreter.  Leaves with 1 if they differ.

    A rule (`nldsl verify adamw`) is compared as an optimizer, on weights of many shapes.  Of a compiled
    file (`nldsl verify x.py`) it says whether it is still what the certificate beside it is of.

    On a small twin of the specification, by a rule that is printed: outputs, states, gradients at many
    lengths, splits and masks, in float64.
    """
    arguments = cast("dict[str, Any]", parse_settings(settings, VERIFYING))
    source = spec_source(spec)
    asked: dict[str, Any] = {
        "full": full,
        "long": long,
        "compiled": [b.value for b in compiled or ()],
        "exported": export,
    }
    if spec.endswith(".py"):
        more = {"block": block, "set": settings, "seed": seed, "rules": rules, "output": output}
        return _standing(spec, as_json, {**asked, **more})
    found = _rules(source, block, rules, arguments)
    if found:
        _none_ignored(asked, "is for models and blocks, these are rules")
        _finish(_of_rules(found, spec if spec != "-" else "the text", seed), output, spec, as_json)
        return
    _finish(_told(spec, source, {"block": block, "seed": seed, **asked, **arguments}), output, spec, as_json)


def _of_rules(found: list[GroupRule], spec: str, seed: int) -> RuleCertificate:
    from nldsl.certify import verify_rules

    return verify_rules(found, spec, seed)


def _told(spec: str, source: str | Path, asked: dict[str, Any]) -> Certificate:
    """The certificate; in a terminal, what is being done is told meanwhile."""
    from nldsl.certify import verify

    if not sys.stderr.isatty():
        return verify(source, **asked)
    with err().status(f"verify {spec}") as status:
        return verify(source, progress=lambda text: status.update(f"verify {spec}: {text}"), **asked)


def _standing(path: str, as_json: bool, asked: dict[str, Any]) -> None:
    """Whether a compiled file is still what its certificate is of; leaves with 1 if not."""
    from nldsl.certify.artefact import CertificateError, beside, standing

    _none_ignored(asked, "concerns a specification, and this is a compiled file")
    if Path(path).is_file() and not beside(path).is_file():
        raise CommandError(
            "NL1034",
            f"`{path}` has no certificate beside it",
            "`nldsl compile SPEC -o FILE --verify` writes one",
        )
    try:
        found = standing(path)
    except CertificateError as wrong:
        raise CommandError(
            "NL1034", str(wrong), "`nldsl compile SPEC -o FILE --verify` writes one"
        ) from wrong
    if as_json:
        print_json({"file": found.file, "holds": not found.problems, "problems": list(found.problems)})
    else:
        print(found.text())
    if found.problems:
        raise typer.Exit(1)


def _none_ignored(asked: dict[str, Any], reason: str) -> None:
    """What was asked for and says nothing about what is verified is refused."""
    for name, value in asked.items():
        if value:
            option = {"compiled": "compile", "exported": "export"}.get(name, name)
            raise CommandError("NL1024", f"`--{option}` {reason}", f"leave out `--{option}`")


def _rules(source: str | Path, block: str | None, rules: bool, arguments: dict[str, Any]) -> list[GroupRule]:
    """The rules to verify: those of the `train` section, or what the source is made of."""
    from nldsl.certify import rules_in, rules_of

    if rules:
        found = rules_of(open_program(source, block=block, **arguments))
        if not found:
            raise typer.BadParameter("the model has no `train` section", param_hint="--rules")
        return found
    return [] if block is not None else rules_in(source, arguments)


def _finish(certificate: Certificate | RuleCertificate, output: str | None, spec: str, as_json: bool) -> None:
    """Write and print a certificate; leave with 1 if it failed."""
    if output is not None:
        write_atomic(output, json_text(certificate.to_json()), inputs=[spec])
        wrote(output)
    if as_json:
        print_json(certificate.to_json())
    else:
        print(certificate.text())
    if not certificate.passed:
        raise typer.Exit(1)
