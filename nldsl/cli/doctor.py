"""`nldsl doctor`: what this installation has, and what it lacks for what."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

import nldsl
from nldsl.assets import folder
from nldsl.catalog.components import components, faults
from nldsl.catalog.registry import ORIGIN
from nldsl.cli.common import out, print_json
from nldsl.lowerings.forms import added_lowerings
from nldsl.spec.loader import standard_library
from nldsl.toolchain.compiler import compiler, no_compiler
from nldsl.toolchain.kept import ROOM, libraries, place

_PACKAGES = (
    "torch",
    "numpy",
    "safetensors",
    "lark",
    "networkx",
    "graphviz",
    "typer",
    "rich",
    "ruamel.yaml",
    "PyYAML",
)
_OPTIONAL = {
    "transformers": ("hf", "what `export --to hf` writes is loaded by it"),
    "tokenizers": ("tokenizers", "byte-pair vocabularies: `data tokenizer`, imported runs"),
    "onnx": ("onnx", "`export --to onnx`"),
    "onnxscript": ("onnx", "`export --to onnx`"),
    "onnxruntime": ("onnx", "runs what `export --to onnx` writes"),
    "pyarrow": ("datasets", "documents in parquet files"),
    "tensorboard": ("tensorboard", "shows the curves of runs"),
    "hypothesis": ("test", "`test` draws its cases with it"),
    "pygls": ("server", "the language server for editors"),
    "ipython": ("notebook", "graphs in notebooks"),
    "lm_eval": ("ecosystem", "evaluates what `export --to hf` writes"),
    "lightning": ("ecosystem", "one of the loops in `examples/interop`"),
    "accelerate": ("ecosystem", "one of the loops in `examples/interop`"),
}
"""What few need: the extra that brings it, and what it is for."""


@dataclass(frozen=True)
class Finding:
    """One thing doctor looked at; `note` says what it is for or how to get it."""

    name: str
    state: Literal["ok", "missing", "broken"]
    value: str
    note: str = ""


def command(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Show what this installation has and what it lacks.  Never fails."""
    findings = [*_machine(), *_packages(), *_optional(), *_tools(), *_folders(), *_components()]
    if as_json:
        print_json({"findings": [asdict(f) for f in findings]})
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for f in findings:
        mark = {"ok": "[green]ok[/]", "missing": "[yellow]missing[/]", "broken": "[red]broken[/]"}[f.state]
        table.add_row(mark, escape(f.name), escape(f.value), f"[dim]{escape(f.note)}[/]")
    out().print(table)


def _machine() -> list[Finding]:
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [
        Finding("nldsl", "ok", nldsl.__version__),
        Finding("python", "ok", f"{platform.python_version()} ({platform.machine()} {sys.platform})"),
        Finding("processor threads", "ok", str(threads), "what torch may use"),
    ]


def _packages() -> list[Finding]:
    findings = []
    for name in _PACKAGES:
        try:
            findings.append(Finding(name, "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            here = name == "torch" and find_spec("torch") is not None
            note = "compile, verify, train and generate need it" if name == "torch" else "pip install it"
            findings.append(Finding(name, "ok" if here else "missing", "present" if here else "", note))
    return findings


def _optional() -> list[Finding]:
    findings = []
    for name, (extra, use) in _OPTIONAL.items():
        try:
            findings.append(Finding(name, "ok", metadata.version(name), use))
        except metadata.PackageNotFoundError:
            findings.append(Finding(name, "missing", "", f"{use}: pip install 'nldsl[{extra}]'"))
    return findings


def _tools() -> list[Finding]:
    dot = shutil.which("dot")
    note = "draws png and pdf; svg and html need nothing"
    return [Finding("dot (graphviz)", "ok" if dot else "missing", dot or "", note), *_native()]


def _native() -> list[Finding]:
    """The C compiler, and what it has made."""
    found, (folder, reason) = compiler(), place(make=False)
    use = "native lanes, loops of optimizers: without, torch computes them"
    findings = [Finding("C compiler", "ok" if found else "missing", found, use if found else no_compiler())]
    if folder is None:
        return [*findings, Finding("compiled C", "missing", "", f"{reason}: every process compiles anew")]
    known = libraries(folder)
    size = sum(x.size for x in known) / 2**20
    note = f"{len(known)} functions, {size:.1f} of {ROOM / 2**20:g} MiB; delete it to compile anew"
    return [*findings, Finding("compiled C", "ok", str(folder), note)]


def _folders() -> list[Finding]:
    findings = []
    for name in ("specs", "grammars"):
        try:
            findings.append(
                Finding(f"{name} folder", "ok", str(folder("specs" if name == "specs" else "grammars")))
            )
        except FileNotFoundError:
            findings.append(Finding(f"{name} folder", "missing", "", "install nldsl again"))
    findings.append(Finding("temporary folder", "ok", tempfile.gettempdir()))
    return findings


def _components() -> list[Finding]:
    """What other distributions add, and what is wrong with it."""
    findings = []
    for component in components():
        mine = standard_library().index.items()
        parts = {
            "primitives": [name for name, owner in ORIGIN.items() if owner == component],
            "specifications": [name for (_, name), path in mine if path.is_relative_to(component.folder)],
            "lowerings": [
                f.name
                for f in added_lowerings()
                if f.recognise.__module__.startswith(f"{component.package}.")
            ],
        }
        added = "; ".join(f"{kind} {', '.join(sorted(names))}" for kind, names in parts.items() if names)
        name = f"component {component.name}"
        findings.append(Finding(name, "ok", component.distribution, added or "adds nothing"))
    added_lowerings()
    standard_library()
    return findings + [Finding("component", "broken", f"{d.code}: {d.message}", d.help) for d in faults()]
