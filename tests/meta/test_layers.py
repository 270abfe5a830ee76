"""Imports point down the table of layers, and what checks and draws never imports torch."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = [
    {"cli"},
    {"exchange"},
    {"notebook", "train"},
    {"studio"},
    {"certify", "evaluate", "server", "view"},
    {"driver"},
    {"lowerings"},
    {"emit", "reference"},
    {"native"},
    {"runtime"},
    {"plan", "review"},
    {"calculus"},
    {"graph"},
    {"spec"},
    {"library"},
    {"catalog"},
    {"syntax"},
    {"diagnostics"},
    {"source", "assets", "lexer", "toolchain"},
]
WITHOUT_TORCH = ["", ".source", ".syntax", ".catalog", ".library", ".spec", ".graph", ".calculus", ".plan"]
WITHOUT_TORCH += [".review", ".emit.printer", ".emit.standalone", ".lowerings", ".view", ".server", ".cli"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


def contract() -> dict[str, object]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    return next(c for c in contracts if c["type"] == "layers")


def test_the_contract_is_the_table_of_layers() -> None:
    layers = contract()["layers"]
    assert isinstance(layers, list)
    assert [set(layer.replace(" ", "").split("|")) for layer in layers] == LAYERS
    assert not contract().get("ignore_imports")


def test_every_room_has_a_layer() -> None:
    rooms = {path.stem for path in (ROOT / "nldsl").iterdir() if path.suffix == ".py" or path.is_dir()}
    unknown = {room for room in rooms if not room.startswith("_") and room != "py"} - set().union(*LAYERS)
    assert not unknown


def test_imports_point_down() -> None:
    result = run("-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_torch_is_not_imported(module: str) -> None:
    code = f"import sys, nldsl{module}; sys.exit('torch' in sys.modules)"
    result = run("-c", code)
    assert result.returncode == 0, result.stderr or f"nldsl{module} imports torch"


@pytest.mark.parametrize("arguments", [["--help"], ["check", "hope"], ["graph", "hope"], ["fmt", "--help"]])
def test_commands_do_not_import_torch(arguments: list[str], tmp_path: Path) -> None:
    """Torch is made unimportable: a command that needs it fails."""
    out = ["--output", str(tmp_path / "graph.dot")] if arguments[0] == "graph" else []
    code = "import sys; sys.modules['torch'] = None; from nldsl.cli import main; sys.exit(main())"
    result = run("-c", code, *arguments, *out)
    assert result.returncode in (0, 1), result.stdout + result.stderr
    assert "torch" not in result.stderr


def test_no_help_imports_torch() -> None:
    """Nor does completion, which loads the command whose options are asked for."""
    code = "import sys; sys.modules['torch'] = None; from nldsl.cli.app import COMMANDS, build_app\n"
    code += "for name in COMMANDS: build_app(name)"
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    assert run("-m", "nldsl", "bisect", "--help").stdout.count("checkpointed") == 1
