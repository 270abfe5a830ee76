"""Nodes, printer and loader of emitted code, by example."""

from __future__ import annotations

import sys
import traceback

import pytest

from nldsl.emit.imports import import_block
from nldsl.emit.loader import load_module, register_source
from nldsl.emit.nodes import (
    Assign,
    AugmentedAssign,
    Blank,
    ClassDef,
    Comment,
    Comprehension,
    Conditional,
    Delete,
    EmitError,
    Evaluate,
    Expression,
    For,
    FunctionDef,
    If,
    Import,
    Item,
    Literal,
    Module,
    Not,
    Parameter,
    SliceItem,
    Starred,
    TupleOf,
    Var,
    assign,
    both,
    call,
    compare,
    either,
    name,
    returns,
    to_expression,
)
from nldsl.emit.printer import WIDTH, print_expression, print_module

x, t, w = name("x"), name("t"), name("w")


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (x[:, :, t : t + 1], "x[:, :, t : t + 1]"),
        (x[..., None], "x[..., None]"),
        (x[1:], "x[1:]"),
        (x[t.attr("n") :], "x[t.n :]"),
        (x[-1], "x[-1]"),
        (w @ x + 1, "w @ x + 1"),
        ((w + x) @ t, "(w + x) @ t"),
        (w - (x - t), "w - (x - t)"),
        (2.0 * x**2, "2.0 * x**2"),
        ((x + 1) ** 2, "(x + 1) ** 2"),
        (-(x**2), "-(x**2)"),
        (-x, "-x"),
        (1 - x, "1 - x"),
        (both(x.is_(None), Not(either(t, w))), "x is None and not (t or w)"),
        (compare("<=", x, 1), "x <= 1"),
        (Conditional(x.is_not(None), x, t), "x if x is not None else t"),
        (name("self.q.linear").method("forward", x, k=1e-6), "self.q.linear.forward(x, k=1e-06)"),
        (call("f", Starred(x)).unpack(w), "f(*x, **w)"),
        (to_expression({"a": (1,), "b": [x, -1.5]}), '{"a": (1,), "b": [x, -1.5]}'),
        (Comprehension(x[Var("i")], ("i",), call("range", 3)), "[x[i] for i in range(3)]"),
        (to_expression(float("inf")), 'float("inf")'),
        (to_expression(()), "()"),
    ],
)
def test_expressions(node: Expression, text: str) -> None:
    assert print_expression(node) == text


def test_a_module_reads_like_written_code() -> None:
    block = ClassDef(
        "Block",
        (name("Module"),),
        (
            FunctionDef(
                "forward",
                (
                    Parameter("self"),
                    Parameter("x", name("Tensor")),
                    Parameter("mask", name("Tensor"), Literal(None)),
                ),
                (
                    Comment("keys and values"),
                    assign(["k", "v"], call("read", x)),
                    Blank(),
                    If(
                        name("mask").is_(None),
                        (returns(name("k"), name("v")),),
                        (AugmentedAssign(name("k"), "*", t),),
                    ),
                    For(("i",), call("range", 3), (Evaluate(call("step", name("i"))),)),
                    Delete(("v", "i")),
                    returns(name("k")),
                ),
                "One step.",
                name("Tensor"),
            ),
        ),
        "A block.",
    )
    text = print_module(Module("A module.\n\nMore of it.", (*import_block({"torch": ["Tensor"]}), block)))
    assert text == (
        '"""A module.\n\nMore of it.\n"""\n\nfrom __future__ import annotations\n\nimport torch\n'
        'from torch import Tensor\n\n\nclass Block(Module):\n    """A block."""\n\n'
        "    def forward(self, x: Tensor, mask: Tensor = None) -> Tensor:\n"
        '        """One step."""\n        # keys and values\n        k, v = read(x)\n\n'
        "        if mask is None:\n            return k, v\n        else:\n            k *= t\n"
        "        for i in range(3):\n            step(i)\n        del v, i\n        return k\n"
    )


def test_long_lines_break_at_the_outermost_brackets_first() -> None:
    arguments = [Var(f"argument_number_{i}") for i in range(5)]
    one_line = print_expression(call("some_function_with_a_name", *arguments))
    assert one_line.split("\n")[1].strip() == ", ".join(a.name for a in arguments)
    many = print_expression(call("some_function", *arguments, *arguments))
    assert many.count("\n") == 11
    assert many.endswith(",\n)")
    assert max(map(len, many.split("\n"))) <= WIDTH


@pytest.mark.parametrize(
    "make",
    [
        lambda: Literal(-1),
        lambda: Literal(float("nan")),
        lambda: Literal(b"x"),
        lambda: Assign((), x),
        lambda: Assign((call("f"),), x),
        lambda: Item(x, TupleOf((x,))),
        lambda: Import("module", ()),
        lambda: Module("  ", ()),
        lambda: FunctionDef("f", (Parameter("a", default=x), Parameter("b")), ()),
        lambda: FunctionDef("f", (Parameter("a"), Parameter("a")), ()),
        lambda: bool(x < t),
        lambda: print_expression(SliceItem(x)),
        lambda: print_module(Module("Doc.", (Evaluate(Starred(x)),))),
        lambda: print_module(Module("Doc.", (returns(x), Assign((Literal("x"),), x)))),
    ],
)
def test_what_python_does_not_allow_is_refused(make: object) -> None:
    with pytest.raises(EmitError):
        make()  # type: ignore[operator]


def test_expressions_cannot_be_iterated_by_mistake() -> None:
    with pytest.raises(TypeError):
        list(x)  # type: ignore[call-overload]


def test_import_block_leaves_out_what_is_not_used() -> None:
    block = import_block({"typing": ["Any"], "torch": ["Tensor"]}, body=[assign("y", name("Tensor"))])
    assert [(b.module, b.names) for b in block if isinstance(b, Import)] == [
        ("__future__", ("annotations",)),
        ("torch", ("Tensor",)),
    ]


def test_tracebacks_show_emitted_lines() -> None:
    module = load_module('"""Doc."""\n\n\ndef fail():\n    return 1 / 0  # the culprit\n', "emitted")
    with pytest.raises(ZeroDivisionError) as caught:
        module.fail()
    assert "the culprit" in "".join(traceback.format_exception(caught.value))
    assert register_source("emitted", "a = 1\n") != register_source("emitted", "a = 2\n")


def test_emitted_modules_are_where_torch_looks_for_them() -> None:
    """`torch.compile` imports a module by the name its functions carry."""
    text = "def triple(x):\n    return 3 * x\n"
    module = load_module(text, "nldsl_triple")
    assert sys.modules[module.triple.__module__] is module
    again = load_module(text, "nldsl_triple")
    assert again is not module and sys.modules[module.__name__] is again
    assert load_module(text + "\n", "nldsl_triple").__name__ != module.__name__
