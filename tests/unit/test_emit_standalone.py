"""Standalone files: nothing of ours is imported, and the numbers are the same."""

from __future__ import annotations

import ast
import builtins
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nldsl.emit import sources
from nldsl.emit.imports import import_block
from nldsl.emit.nodes import ClassDef, Import, Module, Statement, assign, call, name
from nldsl.emit.printer import WIDTH, print_module
from nldsl.emit.sources import ROOT, StandaloneError, parse_source, read_source, rename
from nldsl.emit.standalone import inline

HIDE = "import sys\nsys.modules['nldsl'] = None\nsys.path.insert(0, sys.argv[1])\n"
COMPARE = """
import torch
from emitted import decay_kernel, delta_recurrence, Module, normal
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(3)
kernel = decay_kernel(torch.rand(2, 5, generator=generator, dtype=torch.float64).log())
module = Module()
module.declare("q.linear.weight", (2, 3), "matrix", normal(0.5))
module.initialise(7)
print(kernel.after.tolist(), module.q.linear.weight.tolist(), [n for n, _ in module.named_parameters()])
"""
NAMES = {
    "nldsl.runtime.decay": ["decay_kernel"],
    "nldsl.runtime.recurrence": ["delta_recurrence"],
    "nldsl.runtime.module": ["Module", "normal"],
}


def emitted(names: dict[str, list[str]], *body: Statement) -> str:
    return print_module(Module("Emitted.", (*import_block(names), *body)))


def run(folder: Path, code: str) -> str:
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout


def test_numbers_are_those_of_the_package(tmp_path: Path) -> None:
    (tmp_path / "emitted.py").write_text(inline(emitted(NAMES)))
    alone = run(tmp_path, HIDE + COMPARE)
    (tmp_path / "emitted.py").write_text(emitted(NAMES))
    assert (
        run(tmp_path, f"import sys\nsys.path[:0] = [sys.argv[1], {str(ROOT.parent)!r}]\n" + COMPARE) == alone
    )


def runtime_names() -> dict[str, list[str]]:
    """Every public definition of the runtime; of two that share a name, the first."""
    seen: set[str] = set()
    result: dict[str, list[str]] = {}
    for path in sorted((ROOT / "runtime").glob("*.py")):
        module = f"nldsl.runtime.{path.stem}"
        if path.stem != "__init__":
            result[module] = [d for d in read_source(module).definitions if d[0] != "_" and d not in seen]
            seen.update(result[module])
    return {module: names for module, names in result.items() if names}


def test_the_whole_runtime_can_be_inlined(tmp_path: Path) -> None:
    text = inline(emitted(runtime_names()))
    assert not [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nldsl")
    ]
    (tmp_path / "emitted.py").write_text(text)
    run(tmp_path, HIDE + "import emitted")


def test_files_need_no_formatting(tmp_path: Path) -> None:
    body = (assign("SCALE", 2.0), ClassDef("Block", (name("Module"),), ()), assign("block", call("Block")))
    (tmp_path / "emitted.py").write_text(inline(emitted(NAMES, *body)))
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--no-cache", f"--line-length={WIDTH}", str(tmp_path)]
    for command in (["format", "--diff"], ["check", "--select=F,I"]):
        result = subprocess.run([*ruff, *command, *options], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of our name with other files."""
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    read_source.cache_clear()
    yield tmp_path
    read_source.cache_clear()


def test_comments_decorators_and_constants_come_along(package: Path) -> None:
    (package / "a.py").write_text(
        '"""A."""\n\nimport functools\n\nLIMIT = 3\n"""How many."""\n\n\n# why it is so\n@functools.cache\n'
        "def f(x: Number) -> Number:\n    return LIMIT * x\n\n\nNumber = float\nUNUSED = 1\n"
    )
    assert inline(emitted({"nldsl.a": ["f"]}, assign("y", call("f", 2)))) == (
        '"""Emitted."""\n\nfrom __future__ import annotations\n\nimport functools\n\nimport torch\n\n'
        'LIMIT = 3\n"""How many."""\n\n\n# why it is so\n@functools.cache\n'
        "def f(x: Number) -> Number:\n    return LIMIT * x\n\n\nNumber = float\n\n\ny = f(2)\n"
    )


def test_re_exports_and_registrations_are_followed(package: Path) -> None:
    (package / "a.py").write_text(
        "class State:\n    pass\n\n\ndef other(): ...\n\n\nprint(State)\nprint(other)\n"
    )
    (package / "b.py").write_text('from nldsl.a import State\n\n__all__ = ["State"]\n')
    text = inline(emitted({"nldsl.b": ["State"]}))
    assert "print(State)" in text
    assert "other" not in text


def test_private_names_that_clash_are_told_apart(package: Path) -> None:
    (package / "a.py").write_text("def _h(x):\n    return x + 1\n\n\ndef f(x):\n    return _h(x)\n")
    (package / "b.py").write_text("def _h(x):\n    return x * 10\n\n\ndef g(x):\n    return _h(x)\n")
    scope: dict[str, int] = {}
    exec(inline(emitted({"nldsl.a": ["f"], "nldsl.b": ["g"]}, assign("y", call("g", call("f", 1))))), scope)
    assert scope["y"] == 20


def test_names_of_python_keep_their_meaning(package: Path) -> None:
    (package / "a.py").write_text("def sum(x):\n    return x.sum(-1)\n")
    (package / "b.py").write_text("def total(x):\n    return sum([x, x])\n")
    body = (assign("y", call("total", 3)), assign("z", call("sum", call("torch.ones", 4))))
    scope: dict[str, object] = {}
    exec(inline(emitted({"nldsl.a": ["sum"], "nldsl.b": ["total"]}, *body)), scope)
    assert scope["y"] == 6
    assert scope["z"] == 4
    assert {"sum_a", "total"} < set(scope)


def test_no_definition_of_the_runtime_stands_in_for_a_builtin() -> None:
    tree = ast.parse(inline(emitted(runtime_names())))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert "sum_values" in defined
    assert not defined & set(dir(builtins))


@pytest.mark.parametrize(
    ("files", "names", "message"),
    [
        (
            {"a": "from nldsl import b\n\n\ndef f():\n    return b.g()\n"},
            ["f"],
            "as a whole|no source|has no",
        ),
        ({"a": "from .b import g\n\n\ndef f():\n    return g()\n"}, ["f"], "relative"),
        ({"a": "if 1:\n    f = 2\n"}, ["f"], "neither a definition nor an import"),
        ({"a": "def g(): ...\n"}, ["f"], "has no `f`"),
        ({"a": "f = 1\nf = 2\n"}, ["f"], "twice"),
        ({}, ["f"], "no source file"),
    ],
)
def test_what_cannot_be_inlined_is_refused(
    package: Path, files: dict[str, str], names: list[str], message: str
) -> None:
    (package / "__init__.py").write_text("")
    for file, text in files.items():
        (package / f"{file}.py").write_text(text)
    with pytest.raises(StandaloneError, match=message):
        inline(emitted({"nldsl.a": names}))


def test_whole_modules_and_undefined_names_are_refused(package: Path) -> None:
    with pytest.raises(StandaloneError, match="as a whole"):
        inline(print_module(Module("Doc.", (Import("nldsl.runtime", alias="runtime"),))))
    (package / "a.py").write_text("def f():\n    return nowhere\n")
    with pytest.raises(StandaloneError, match="nowhere"):
        inline(emitted({"nldsl.a": ["f"]}))


def test_renaming_refuses_local_names() -> None:
    assert rename("def f(x):\n    return g(x)", {"g": "h"}) == "def f(x):\n    return h(x)"
    for code in ("def f(g):\n    return g", "def f():\n    g = 1\n    return g"):
        with pytest.raises(StandaloneError):
            rename(code, {"g": "h"})


def test_imports_for_annotations_only_count() -> None:
    text = "if TYPE_CHECKING:\n    from torch import Tensor\n\n\ndef f(x: Tensor): ...\n"
    assert set(parse_source("nldsl.a", text).imports) == {"Tensor"}
