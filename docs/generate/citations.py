"""From the paper's equations to the files that cite them, and on to the tests that name them."""

from __future__ import annotations

from collections.abc import Iterable

from docs.generate.library import Spec, citations, comments, readings, specs
from docs.generate.markdown import code, count, page, table
from docs.generate.readings import READINGS
from docs.generate.tests_of import Test, tests_of, through

SHOWN = 4
"""Tests that a row of the map shows; their number is always given."""


def cited_by(spec: Spec) -> list[str]:
    """What of the paper a file cites: `Eq. 70-71`, `Table 6`."""
    own = [c for c in citations(comments(spec.text)) if not c.source]
    return _spoken({n for c in own for n in c.equations}) + sorted({o for c in own for o in c.others})


def _spoken(numbers: Iterable[int]) -> list[str]:
    return [f"Eq. {a}" if a == b else f"Eq. {a}-{b}" for a, b in _runs(sorted(numbers))]


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Neighbours together.

    Example:
        >>> _runs([70, 71, 93])
        [(70, 71), (93, 93)]
    """
    found: list[tuple[int, int]] = []
    for n in numbers:
        if found and found[-1][1] == n - 1:
            found[-1] = found[-1][0], n
        else:
            found.append((n, n))
    return found


def equation_map() -> dict[int, list[Spec]]:
    """The paper's equations, each with the files that cite it."""
    found: dict[int, list[Spec]] = {}
    for spec in specs():
        own = {n for c in citations(comments(spec.text)) if not c.source for n in c.equations}
        for number in sorted(own):
            found.setdefault(number, []).append(spec)
    return dict(sorted(found.items()))


def other_papers() -> list[tuple[str, list[str], Spec]]:
    """Papers by others: name, what is cited of it, and the file that does."""
    found: dict[tuple[str, Spec], list[str]] = {}
    for spec in specs():
        for cited in citations(comments(spec.text)):
            if cited.source:
                found.setdefault((cited.source, spec), []).extend([*_spoken(cited.equations), *cited.others])
    rows = [(source, list(dict.fromkeys(parts)), spec) for (source, spec), parts in found.items()]
    return sorted(rows, key=lambda row: (row[0], row[2].place))


def reading_map() -> dict[int, list[Spec]]:
    """The readings, each with the files that name it."""
    found: dict[int, list[Spec]] = {number: [] for number in READINGS}
    for spec in specs():
        for number in sorted(set(readings(comments(spec.text)))):
            found.setdefault(number, []).append(spec)
    return dict(sorted(found.items()))


def citation_rows(spec: Spec) -> str:
    """What one file cites, which readings it follows, and the tests that name it."""
    cites = ", ".join(cited_by(spec)) or "no equation of the paper"
    numbers = sorted(set(readings(comments(spec.text))))
    follows = ", ".join(f"[P{n}](../../paper/readings.md#p{n})" for n in numbers if n in READINGS)
    head = f"Cites {cites}." + (f" Readings: {follows}." if follows else "")
    tests = "\n".join(f"    - {code(test.id)}" for test in tests_of(spec))
    if not tests:
        users = ", ".join(f"[{code(user.stem)}](../../{user.page})" for user in through(spec))
        return f"{head} Tested with {users}." if users else head
    return f'{head}\n\n??? note "{count(len(tests_of(spec)), "test")} that name it"\n\n{tests}'


def map_page() -> str:
    """Equation, specification, test."""
    rows = [
        (f"Eq. {number}", _link(spec), _tests(tests_of(spec)) or _through(spec))
        for number, cited in equation_map().items()
        for spec in cited
    ]
    others = [
        (source, ", ".join(parts), _link(spec), _tests(tests_of(spec)) or _through(spec))
        for source, parts, spec in other_papers()
    ]
    return page(
        "Equation, specification, test",
        "Every equation of the paper that a file of the library cites in its comments, the file, and the "
        "tests that name it. The table is made from the files and the tests; a test of its own fails if a "
        "row has no test. Beside these, `nldsl verify` compares the compiled form of every model with the "
        "interpreter, and its certificate stands on the page of the model.",
        table(("equation", "specification", "tests"), rows),
        "## Other papers",
        "Layers and rules that others have published, with the places that their files cite.",
        table(("paper", "there", "specification", "tests"), others),
        wide=True,
    )


def _link(spec: Spec) -> str:
    return f"[{code(spec.place)}](../{spec.page})"


def _through(spec: Spec) -> str:
    """The files whose tests include this one, with a test of the first."""
    users = through(spec)
    if not users:
        return ""
    return f"with {', '.join(_link(user) for user in users)}: {_tests(tests_of(users[0]))}"


def _tests(found: tuple[Test, ...]) -> str:
    """The first few by name, conformance before the rest."""
    order = ("conformance", "golden", "unit")
    kin = {test: test.place.split("/")[1] for test in found}
    first = sorted(found, key=lambda t: order.index(kin[t]) if kin[t] in order else len(order))
    words = "<br>".join(code(test.id.removeprefix("tests/")) for test in first[:SHOWN])
    return words + (f"<br>and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def readings_page() -> str:
    """Where the paper is ambiguous, and what is done here."""
    parts = [
        "The paper is ambiguous or misprinted in places. Every such place has a reading with a number; the "
        "specification that depends on it names the number in its comment, and the other readings are "
        "there by name."
    ]
    for number, specs_of in reading_map().items():
        if number not in READINGS:
            continue
        reading = READINGS[number]
        files = ", ".join(_link(spec) for spec in specs_of)
        parts += [
            f"## P{number}: {reading.place} {{#p{number}}}",
            f"*{reading.found}*",
            reading.here + (f" Otherwise: {reading.otherwise}." if reading.otherwise else ""),
            f"Named by {files}." if files else "",
        ]
    return page("Readings of the paper", *parts)
