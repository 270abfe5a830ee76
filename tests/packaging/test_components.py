"""Components of other distributions: the files of CONTRIBUTING.md, built, installed and verified."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nldsl.assets import specs_folder

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```\w*\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = dict(FENCE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
NAMES = {"primitives/cube.py", "maps/cubed.nl", "objectives/quartic.nl", "rules/halved.nl"} | {
    "layers/third_layer.nl",
    "lowerings/outer_sum.py",
}
BROKEN = {
    "raises/__init__.py": "raise RuntimeError('out of order')\n",
    "plain.py": "value = 1\n",
    "clash/__init__.py": "",
    "clash/primitives/exp.py": FILES["thirdparty/primitives/cube.py"].replace('"cube"', '"exp"'),
    "clash/primitives/odd.py": "PRIMITIVE = 'odd'\n",
    "clash/primitives/lost.py": "import no_such_module\n",
    "clash/lowerings/chunk.py": "LOWERING = None\n",
    "clash/deltanet.nl": "block deltanet(x) { return x }\nblock fresh(x) { return 2 * x }\n",
    "clash/unreadable.nl": "",
}


def run(site: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`python ...` with a folder of installed distributions in front."""
    environment = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=site.parent
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def nldsl(site: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run(site, "-m", "nldsl", *arguments, code=code)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution of CONTRIBUTING.md, built and installed into a folder of its own."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    assert {name.removeprefix("thirdparty/") for name in FILES} >= NAMES
    for name, text in FILES.items():
        file = source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    (source / "thirdparty" / "__init__.py").write_text("")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target


def test_everything_is_found_and_named_with_its_distribution(site: Path) -> None:
    found = json.loads(nldsl(site, "doctor", "--json").stdout)["findings"]
    (mine,) = [f for f in found if f["name"] == "component thirdparty"]
    assert mine["state"] == "ok" and mine["value"] == "distribution `nldsl-thirdparty 1.0`"
    assert mine["note"] == (
        "primitives cube; specifications cubed, halved, quartic, third_layer, third_sum; lowerings outer_sum"
    )
    assert not [f for f in found if f["state"] == "broken"]
    listed = {e["name"] for e in json.loads(nldsl(site, "list", "--json").stdout)["entries"]}
    assert {"cube", "cubed", "quartic", "halved", "third_layer"} <= listed


def test_a_layer_of_added_parts_is_compiled_in_chunks_and_verified(site: Path) -> None:
    shown = json.loads(nldsl(site, "explain", "third_layer", "--set", "dim=8", "--json").stdout)
    (row,) = shown["lowerings"]
    assert row["lowering"] == "held" and row["chunk"] == 4
    nldsl(site, "verify", "third_layer", "--set", "dim=4")


def test_an_added_lowering_is_chosen_and_verified(site: Path) -> None:
    shown = json.loads(nldsl(site, "explain", "third_sum", "--set", "dim=8", "--json").stdout)
    (row,) = shown["lowerings"]
    assert row["lowering"] == "outer_sum" and row["reason"] == "a sum of outer products"
    assert {o["lowering"] for o in row["others"]} >= {"linear", "sequential"}
    nldsl(site, "verify", "third_sum", "--set", "dim=4")
    gated = json.loads(
        nldsl(site, "explain", "retnet", "--block", "retnet", "--set", "dim=8", "--json").stdout
    )
    (row,) = gated["lowerings"]
    reasons = {o["lowering"]: o["reason"] for o in row["others"]}
    assert row["lowering"] == "linear" and reasons["outer_sum"].startswith("more than a sum")


def test_names_work_as_those_of_the_library(site: Path) -> None:
    write = "M[x] <- cube(x) minimize quartic by halved(lr = 0.1)"
    text = f"block mine(x) {{ level c every 2 tokens {{ memory M = cubed() }}; {write}; return M[x] }}"
    (site.parent / "mine.nl").write_text(text)
    assert "mine.nl: ok" in nldsl(site, "check", "mine.nl").stdout
    made = (
        "import sys, nldsl.library; assert 'cube' in nldsl.library.PRIMITIVES and 'torch' not in sys.modules"
    )
    run(site, "-c", made)


@pytest.fixture
def broken(site: Path, tmp_path: Path) -> Path:
    """A second distribution beside the first, everything in it wrong."""
    both = tmp_path / "site"
    shutil.copytree(site, both)
    for name, text in BROKEN.items():
        (both / name).parent.mkdir(parents=True, exist_ok=True)
        (both / name).write_text(text)
    (both / "clash" / "unreadable.nl").write_bytes(b"\xff\xfe\x00")
    info = both / "unsound-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unsound\nVersion: 0.1\n")
    points = "a = raises\nb = plain\nc = clash\nd = no_such_package\n"
    (info / "entry_points.txt").write_text(f"[nldsl.components]\n{points}")
    return both


def test_bad_components_are_named_and_break_nothing_else(broken: Path) -> None:
    found = json.loads(nldsl(broken, "doctor", "--json").stdout)["findings"]
    said = sorted(f["value"] for f in found if f["state"] == "broken")
    assert all("distribution `unsound 0.1`" in line for line in said)
    expected = {
        ("NL0821", "`raises` does not import: RuntimeError: out of order"),
        ("NL0821", "`no_such_package` does not import: ModuleNotFoundError"),
        ("NL0821", "`clash.primitives.lost` does not import: ModuleNotFoundError"),
        ("NL0821", "`unreadable.nl` cannot be read"),
        ("NL0822", "primitive `exp` exists already"),
        ("NL0822", "block `deltanet` of `deltanet.nl` exists already"),
        ("NL0823", "`plain` is not a package"),
        ("NL0823", "`clash.primitives.odd` declares a `str` as `PRIMITIVE`"),
        ("NL0823", "`lowerings/chunk.py` declares nothing as `LOWERING`"),
    }
    for code, words in expected:
        assert any(line.startswith(code) and words in line for line in said), (code, words, said)
    assert len(said) == len(expected)
    checked = nldsl(broken, "check", "third_layer", "deltanet", "fresh")
    assert checked.stdout.count(": ok") == 3 and "warning[NL0822]" in checked.stderr
    unknown = "block b(x) { return odd(x) }\n"
    (broken.parent / "b.nl").write_text(unknown)
    assert "a component is broken: see `nldsl doctor`" in nldsl(broken, "check", "b.nl", code=1).stderr
    own = "import nldsl.library as l; assert l.PRIMITIVES['exp'].torch == 'torch:exp'"
    run(broken, "-c", own)


@pytest.mark.long
def test_the_same_files_dropped_into_the_tree(tmp_path: Path) -> None:
    """One file per part, put beside its kin; nothing else is edited."""
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "nldsl", tree / "nldsl", ignore=shutil.ignore_patterns("__pycache__", "_data"))
    shutil.copytree(specs_folder(), tree / "specs")
    shutil.copytree(ROOT / "grammars", tree / "grammars")
    homes = {"primitives": "nldsl/library", "lowerings": "nldsl/lowerings/forms"}
    for name, text in FILES.items():
        folder, _, file = name.removeprefix("thirdparty/").partition("/")
        if f"{folder}/{file}" not in NAMES:
            continue
        home = homes.get(folder, f"specs/{'blocks' if folder == 'layers' else folder}")
        package = home.replace("/", ".")
        (tree / home / file).write_text(text.replace(f"thirdparty.{folder}", package), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tree)}
    where = "import nldsl; print(nldsl.__file__)"
    for arguments in (
        ("-c", where),
        ("-m", "nldsl", "verify", "third_layer", "--set", "dim=4"),
        ("-m", "nldsl", "verify", "third_sum", "--set", "dim=4"),
        ("-m", "nldsl", "explain", "third_sum", "--set", "dim=4"),
    ):
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=tree
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if arguments[1] == where:
            assert done.stdout.startswith(str(tree))
    assert "outer_sum" in done.stdout
