"""The property tests of a specification as a pytest file that its author keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nldsl.certify.properties import PROPERTIES

_HEAD = '''"""Property tests of `{name}`, written by `nldsl test`.  They are yours: keep them, change them.

    pytest {file}
"""

{imports}from hypothesis import given, seed
from nldsl.certify.hunt import cases, quick
from nldsl.certify.cases import Case, UnfitError
from nldsl.certify.tested import Tested

TESTED = Tested({source}, {block!r}, {arguments!r})
EXAMPLES = {examples}


def check(name: str, case: Case) -> None:
    """Hold a property against a case; sizes that do not make a program are left out."""
    try:
        TESTED.check(name, case)
    except UnfitError:
        return
'''
_TEST = '''

@seed({seed})
@quick(EXAMPLES)
@given(case=cases(TESTED, {name!r}))
def test_{name}(case: Case) -> None:
    """{text}"""
    check({name!r}, case)
'''


def tested_file(
    source: str,
    target: Path,
    block: str | None,
    arguments: Mapping[str, Any],
    names: Sequence[str],
    *,
    examples: int,
    seed: int,
) -> str:
    """The text of the file `target`; a specification that is a file is found from there.

    Example:
        >>> text = tested_file("hope", Path("test_hope.py"), None, {}, ["splits"], examples=5, seed=0)
        >>> "def test_splits(case: Case)" in text
        True
    """
    path = Path(source)
    imports, shown = "", repr(source)
    if path.is_file():
        imports = "from pathlib import Path\n\n"
        shown = f"Path(__file__).parent / {_from(path, target)!r}"
    head = _HEAD.format(
        name=path.name,
        file=target.name,
        imports=imports,
        source=shown,
        block=block,
        arguments=dict(arguments),
        examples=examples,
    )
    told = {n: " ".join((PROPERTIES[n].check.__doc__ or "").split()) for n in names}
    return head + "".join(_TEST.format(name=n, seed=seed, text=told[n]) for n in names)


def _from(path: Path, target: Path) -> str:
    """`path` as seen from the folder of `target`."""
    try:
        return path.resolve().relative_to(target.resolve().parent).as_posix()
    except ValueError:
        return path.resolve().as_posix()
