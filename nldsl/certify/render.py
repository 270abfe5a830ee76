"""A certificate as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nldsl.certify.certificate import Certificate, CheckResult, Section

_WIDTH = 88
LONG = "original, long"
"""The section of long sequences."""


def render(certificate: Certificate) -> str:
    """Every section as a table, then the verdict.

    Example:
        >>> from nldsl.certify import verify
        >>> print(render(verify("cms", block="cms", dim=8)).splitlines()[-1])
        cms: compiled form and interpreter agree (float64, within 1e-09)
    """
    lines = [_head(certificate)]
    lines += [f"shrunk: {', '.join(certificate.shrunk)}"] if certificate.shrunk else []
    for section in certificate.sections:
        lines += ["", *_section(section)]
    lines += ["", *_verdict(certificate)]
    return "\n".join(lines)


def _head(certificate: Certificate) -> str:
    full = ", original clocks, forward only" if certificate.full else ""
    return (
        f"{certificate.kind} {certificate.spec}, program {certificate.program[:12]}, seed {certificate.seed}"
        f"{full} (nldsl {certificate.nldsl}, torch {certificate.torch}, {certificate.seconds:.1f} s)"
    )


def _section(section: Section) -> Iterator[str]:
    lengths = ", ".join(map(str, section.lengths))
    yield f"clocks {section.name}{_clocks(section)}: {section.tokens} tokens, lengths {lengths}"
    yield from (f"  {note}" for note in section.notes)
    for row in section.lowerings:
        yield f"  {row.block}: {row.memories}: {row.lowering}"
    wide = max(len(check.name) for check in section.checks)
    for check in section.checks:
        yield _row(check, wide)
    if section.difference is not None:
        yield f"  {section.difference}"


def _clocks(section: Section) -> str:
    parts = [f"{old} -> {new}" for old, new in section.clocks]
    tasks = [f"{old} -> {new}" for old, new in section.task_clocks]
    return (f" ({', '.join(parts)})" if parts else "") + (f", task ({', '.join(tasks)})" if tasks else "")


def _row(check: CheckResult, wide: int) -> str:
    mark = "ok  " if check.passed else "FAIL"
    error = "-" if check.error is None else f"{check.error:.1e}"
    text = check.note or check.where
    if check.passed and len(text) > _WIDTH:
        text = f"{text[: _WIDTH - 3]}..."
    return f"  {mark} {check.name:<{wide}}  {error:>7}  {check.cases:>4}  {text}".rstrip()


def _verdict(certificate: Certificate) -> Iterator[str]:
    if certificate.passed:
        exact = dict(certificate.bounds)["float64"]
        # Only one call of hundreds of tokens may have a bound of its own.
        drifted = (c.bound for s in certificate.sections for c in s.checks if c.name == "outputs and states")
        bound = max(exact, *drifted)
        yield f"{certificate.spec}: compiled form and interpreter agree (float64, within {bound:.0e})"
        return
    lasting = [c.name for s in certificate.sections if s.name == LONG for c in s.checks if not c.passed]
    count = len(certificate.failures()) - len(lasting)
    if count:
        checks = "check" if count == 1 else "checks"
        yield f"{certificate.spec}: compiled form and interpreter differ in {count} {checks}"
    if lasting:
        yield f"{certificate.spec}: over thousands of tokens it fails in: {', '.join(lasting)}"
    if certificate.difference is not None:
        yield str(certificate.difference)
