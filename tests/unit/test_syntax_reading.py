"""Files on disk, data folders, and the time a first parse takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nldsl import assets
from nldsl.diagnostics import DiagnosticBag
from nldsl.syntax import read_source
from nldsl.syntax.limits import MAX_BYTES


@pytest.mark.parametrize("data", [b"a = 1\r\nb = 2\r", b"\xef\xbb\xbfa = 1\nb = 2\n"])
def test_line_ends_and_byte_order_marks(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.nl"
    path.write_bytes(data)
    bag = DiagnosticBag()
    file = read_source(path, bag)
    assert file is not None and file.text == "a = 1\nb = 2\n" and not bag.items


@pytest.mark.parametrize(
    ("data", "code"), [(b"a\xff", "NL0803"), (b"x" * (MAX_BYTES + 1), "NL0802"), (None, "NL0801")]
)
def test_unreadable_files_give_a_finding(tmp_path: Path, data: bytes | None, code: str) -> None:
    path = tmp_path / "a.nl"
    if data is not None:
        path.write_bytes(data)
    bag = DiagnosticBag()
    assert read_source(path, bag) is None
    assert [d.code for d in bag.items] == [code] and bag.items[0].help


def test_folders_and_strange_paths_give_a_finding(tmp_path: Path) -> None:
    for path in (tmp_path, "a\0b", "x" * 5000):
        bag = DiagnosticBag()
        assert read_source(path, bag) is None and bag.items[0].code == "NL0801"


def test_data_folders_of_a_wheel_and_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (assets.specs_folder()).is_dir() and "item_line" in assets.grammar_text()
    package = tmp_path / "nldsl"
    (package / "_data" / "grammars").mkdir(parents=True)
    (tmp_path / "specs").mkdir()
    monkeypatch.setattr(assets, "PACKAGE", package)
    assets.folder.cache_clear()
    assert assets.folder("grammars") == package / "_data" / "grammars"
    assert assets.folder("specs") == tmp_path / "specs"
    (tmp_path / "specs").rmdir()
    assets.folder.cache_clear()
    with pytest.raises(FileNotFoundError, match="specs"):
        assets.folder("specs")
    monkeypatch.undo()
    assets.folder.cache_clear()


def test_a_first_parse_is_fast_and_imports_neither_torch_nor_numpy() -> None:
    program = (
        "import time; start = time.process_time()\n"
        "from nldsl.diagnostics import DiagnosticBag\n"
        "from nldsl.source import SourceFile\n"
        "from nldsl.syntax import parse\n"
        "bag = DiagnosticBag()\n"
        "text = 'block f(x) {\\n' + '  x = x + linear(x)\\n' * 100 + '  return x\\n}\\n'\n"
        "parse(SourceFile('a.nl', text), bag)\n"
        "assert not bag.items\n"
        "import sys; assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "print(time.process_time() - start)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.0
