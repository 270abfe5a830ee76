"""The wheel holds the grammars and the specs, and works from another folder without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ALONE = "import sys; sys.modules['nldsl'] = None\nimport alone; model = alone.build(seed=3)\n"
INSTALLED = "import nldsl; model = nldsl.compile('hope_tiny', seed=3)\n"
SAMPLE = """
import torch
torch.set_num_threads(1)
tokens = torch.randint(0, 256, (2, 80), generator=torch.Generator().manual_seed(0))
loss, state = model.learn(tokens, model.init_state(2))
logits, state = model(tokens[:, :7], state)
print(loss.item(), logits.double().sum((0, 1)).tolist(), sorted(state.tensors()))
"""
"""A standalone file where the package cannot be imported, and the package: one model of one seed."""


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Run a command; its output, or a failure that shows it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))} | environment
    done = subprocess.run(
        command, cwd=folder, env=clean, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    out = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)], ROOT)
    (built,) = out.glob("*.whl")
    return built


def names_below(folder: str, *suffixes: str) -> set[str]:
    """Tracked-looking files below a folder of the checkout, relative to it."""
    root = ROOT / folder
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix in suffixes}


def test_the_wheel_holds_code_grammars_and_specs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(n for n in names if n.endswith("METADATA"))
        about = archive.read(metadata).decode()
    specs = {f"nldsl/_data/specs/{n}" for n in names_below("specs", ".nl", ".yaml")}
    grammars = {f"nldsl/_data/grammars/{n}" for n in names_below("grammars", ".lark", ".json")}
    code = {f"nldsl/{n}" for n in names_below("nldsl", ".py", ".js", ".css")}
    assert {"nldsl/view/web/page.css", "nldsl/studio/web/start.js"} <= code
    assert specs and grammars and code
    assert specs | grammars | code | {"nldsl/py.typed"} <= names
    assert {n.split("/")[0].split("-")[0] for n in names} == {"nldsl"}, "nothing else is installed"
    assert "Requires-Dist: torch>=2.13" in about and "Requires-Python: >=3.11" in about


@pytest.mark.long
def test_the_wheel_works_elsewhere(wheel: Path, tmp_path: Path) -> None:
    """Dependencies come from this environment by a path file, so that nothing is downloaded twice."""
    run([sys.executable, "-m", "venv", str(tmp_path / "venv")], tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    site = Path(
        run([python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], tmp_path).strip()
    )
    run([python, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", str(wheel)], tmp_path)
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    where = run([python, "-c", "import nldsl; print(nldsl.__file__)"], tmp_path).strip()
    assert Path(where).is_relative_to(tmp_path), where

    nldsl = str(tmp_path / "venv" / "bin" / "nldsl")
    run([nldsl, "check", "hope"], tmp_path)
    run([nldsl, "graph", "hope", "-o", "hope.svg"], tmp_path)
    assert "<svg" in (tmp_path / "hope.svg").read_text()
    run([nldsl, "graph", "hope", "-o", "hope.html"], tmp_path)
    assert "<script>" in (tmp_path / "hope.html").read_text()
    run([nldsl, "compile", "hope_tiny", "--standalone", "-o", "alone.py"], tmp_path)
    assert "import nldsl" not in (tmp_path / "alone.py").read_text()
    answers = [run([python, "-c", code + SAMPLE], tmp_path) for code in (ALONE, INSTALLED)]
    assert answers[0] == answers[1] and len(answers[0]) > 100
