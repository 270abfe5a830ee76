"""What the C compiler makes is kept between processes, and nothing that goes wrong there is an error."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from nldsl.cli import doctor
from nldsl.runtime import native
from nldsl.toolchain import compiler as toolchain
from nldsl.toolchain import kept

pytestmark = pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")
TEXT = "int step(long n, const long *s, void **a, const double *x, int t) { return NUMBER + n; }"
CHILD = """
import sys
from nldsl.runtime import native
for text in sys.argv[1:]:
    print(native.compiled(text, "float")(1, None, None, None, 1))
"""


def text(number: int) -> str:
    return TEXT.replace("NUMBER", str(number))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this test keeps things; options that take little time."""
    monkeypatch.setenv(kept.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(native, "FLAGS", [native.PLAIN])
    forget()
    yield tmp_path / "cache" / "native"
    forget()


def forget() -> None:
    """As in a new process."""
    native.built.cache_clear()
    native.compiled.cache_clear()
    native._refused.cache_clear()
    toolchain.compiler.cache_clear()
    toolchain.identity.cache_clear()
    toolchain._STOPPED.clear()


class Runs:
    """Counts the runs of the compiler on texts that are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, right, self.options = 0, native.ran, list[str]()

        def ran(command: str, source: str, *rest: str) -> str:
            self.count += Path(source).read_text() != native.PROBE
            self.options += rest
            return right(command, source, *rest)

        monkeypatch.setattr(native, "ran", ran)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


def result(number: int) -> int:
    """What a new process gets of the text of a number."""
    forget()
    made = native.built(text(number), "float")
    assert not isinstance(made, str), made
    return made(1, None, None, None, 1) - 1


def replaced(path: Path, data: bytes) -> None:
    """A file anew: what is loaded from the old one is left alone."""
    other = path.with_suffix(".other")
    other.write_bytes(data)
    os.replace(other, path)


def test_a_later_process_compiles_nothing(folder: Path, runs: Runs) -> None:
    assert [result(41), result(41), result(42)] == [41, 41, 42]
    assert runs.count == 2
    assert len(list(folder.iterdir())) == 2
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", [lambda d: d[:500], lambda d: b"", lambda d: d[:99] + b"?" + d[100:]])
def test_what_is_damaged_is_made_anew(damage: Callable[[bytes], bytes], folder: Path, runs: Runs) -> None:
    result(43)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    replaced(path, damage(whole))
    assert result(43) == 43
    assert runs.count == 2
    assert [result(43), runs.count, len(list(folder.iterdir()))] == [43, 2, 1]


def test_what_cannot_be_loaded_is_made_anew(folder: Path, runs: Runs) -> None:
    """Whole, but for a machine of another kind."""
    result(44)
    (path,) = folder.iterdir()
    path.unlink()
    other = folder.parent / "other"
    other.write_bytes(b"no library")
    kept.keep(folder, path.name.partition("-")[0], other)
    assert [result(44), result(44), runs.count] == [44, 44, 2]


@pytest.mark.parametrize("what", ["machine", "identity"])
def test_code_for_another_processor_or_by_another_compiler_is_not_taken(
    what: str, folder: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    result(45)
    monkeypatch.setattr(native, what, lambda *_: "another one")
    assert [result(45), runs.count, len(list(folder.iterdir()))] == [45, 2, 2]


def test_other_options_are_other_code(folder: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    result(46)
    monkeypatch.setenv(native.MORE, "-O1")
    assert [result(46), runs.count, len(list(folder.iterdir()))] == [46, 2, 2]
    monkeypatch.setenv(native.MORE, "--no-such-option")
    forget()
    assert "refuses it" in str(native.built(text(46), "float"))


@pytest.mark.parametrize("option", ["-ffast-math", "-Ofast", "-funsafe-math-optimizations"])
def test_denormal_numbers_stay(
    option: str, folder: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What old compilers link with such options rounds those of the whole process to zero."""
    monkeypatch.setenv(native.MORE, f"-O1 {option}")
    with pytest.warns(RuntimeWarning, match=f"`{option}` of `{native.MORE}` is left out"):
        assert result(48) == 48
    assert runs.count and not {option} & {*runs.options} and "-O1" in runs.options
    assert (torch.tensor(5e-324, dtype=torch.float64) * 1.0).item() > 0


def test_nor_does_the_command_of_the_compiler_bring_such_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", f"{sys.executable} -O1 -ffast-math -march=native")
    with pytest.warns(RuntimeWarning, match="`-ffast-math` of `CC` is left out"):
        assert native.compiler.__wrapped__().split()[1:] == ["-O1", "-march=native"]


@pytest.mark.parametrize("said", ["", "off", "0"])
def test_nothing_is_kept_where_it_is_switched_off(
    said: str, folder: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kept.VARIABLE, said)
    monkeypatch.chdir(folder.parent.parent)
    assert [result(47), result(47), runs.count] == [47, 47, 2]
    assert list(Path.cwd().iterdir()) == []
    assert "switches it off" in doctor._native()[1].note


def opened(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o755)
    folder.chmod(0o755)


def linked(folder: Path) -> None:
    folder.parent.mkdir()
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def hindered(folder: Path) -> None:
    folder.parent.write_text("a file where a folder should be")


@pytest.mark.parametrize(
    ("prepared", "reason"),
    [(opened, "open to others"), (linked, "is no folder"), (hindered, "File exists")],
)
def test_folders_that_are_not_used(
    prepared: Callable[[Path], None], reason: str, folder: Path, runs: Runs
) -> None:
    prepared(folder)
    assert [result(48), result(48), runs.count] == [48, 48, 2]
    assert not list(folder.iterdir() if folder.is_dir() else ())
    assert reason in str(kept.place().reason)


def test_a_folder_of_another_user(folder: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert [result(49), result(49), runs.count] == [49, 49, 2]
    assert kept.place().reason.endswith("belongs to another user")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that cannot be written")
def test_a_folder_that_cannot_be_written(runs: Runs, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kept.VARIABLE, "/proc/self/here")
    assert [result(50), result(50), runs.count] == [50, 50, 2]


def test_a_full_disk(folder: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert [result(51), result(51), runs.count] == [51, 51, 2]
    assert list(folder.iterdir()) == []


def test_what_has_not_been_used_for_longest_goes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        result(60 + number)
    first, second, third = kept.libraries(folder)
    for age, one in enumerate((third, second, first)):
        os.utime(one.path, (1e9 - age, 1e9 - age))
    result(60)
    monkeypatch.setattr(kept, "ROOM", 3 * first.size)
    for age, name in ((2 * kept.ABANDONED, ".new-old"), (0.0, ".new-young")):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age,) * 2)
    result(63)
    left = {p.name for p in folder.iterdir()}
    assert {first.path.name, third.path.name, ".new-young"} < left
    assert len(left) == 4
    assert "3 functions" in doctor._native()[1].note


def test_processes_at_once(folder: Path) -> None:
    """They make the same and other things at the same time; what is left is whole."""
    texts = [[text(70), text(71)], [text(71), text(70)], [text(70), text(72)]]
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, *own], stdout=subprocess.PIPE, text=True)
        for own in texts
    ]
    assert [c.communicate()[0].split() for c in children] == [["71", "72"], ["72", "71"], ["71", "73"]]
    known = kept.libraries(folder)
    assert len(known) == len(list(folder.iterdir())) >= 3
    for one in known:
        assert kept.found(folder, one.path.name.partition("-")[0]) is not None


# --- compilers -----------------------------------------------------------------------------------


def script(tmp_path: Path, body: str) -> str:
    path = tmp_path / "cc"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_that_hangs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended with what it has started, and not asked again."""
    monkeypatch.setenv("CC", script(tmp_path, f"sleep 60 & echo $! >> {tmp_path}/child; wait"))
    monkeypatch.setattr(toolchain, "LIMIT", 0.5)
    forget()
    said = native.built(text(80), "float")
    assert "did not come to an end within 0.5 seconds" in str(said)
    assert native.built(text(81), "float") == said
    (child,) = (tmp_path / "child").read_text().split()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            break
        time.sleep(0.05)
    else:
        pytest.fail("what the compiler has started goes on")


def test_a_compiler_without_openmp(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    """Everything but threads is as it was."""
    plain = native.compiler()
    refusing = f'for x; do [ "$x" = -fopenmp ] && exit 1; done; echo "$@" >> {tmp_path}/asked'
    refusing += f'; exec {plain} "$@"'
    monkeypatch.setenv("CC", script(tmp_path, refusing))
    own = [*native.PLAIN, "-march=native"]
    monkeypatch.setattr(native, "FLAGS", [[*own, "-fopenmp"], [*own, "-fopenmp-simd"], native.PLAIN])
    assert [result(82), runs.count] == [82, 1]
    assert (tmp_path / "asked").read_text().strip().endswith("-fopenmp-simd")


def test_a_compiler_with_options_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", f"{native.compiler()} -DNUMBER=7")
    forget()
    assert native.compiler().endswith("-DNUMBER=7")
    made = native.built(TEXT, "float")
    assert not isinstance(made, str), made
    assert made(1, None, None, None, 1) == 8
    monkeypatch.setenv("CC", "'no end")
    forget()
    assert native.compiler()


@pytest.mark.parametrize("said", ["0", "off", "No"])
def test_c_is_kept_out(said: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(toolchain.SWITCH, said)
    forget()
    assert native.compiler() == ""
    assert native.built(text(90), "float") == f"`NLDSL_NATIVE={said}` keeps C out"
    assert native.compiled(text(90), "float") is None
    assert (doctor._native()[0].state, doctor._native()[0].note) == ("missing", native.no_compiler())
