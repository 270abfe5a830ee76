"""No tracked file names a folder of the machine it was written on, or a private package host."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["work", "root", r"home/\w+", r"Users/\w+"]
# A path stands at the start of a word; `/root/` inside a longer path or a URL is something else.
LOCAL = re.compile(rf"(?<![\w./~*-])/(?:{'|'.join(FOLDERS)})(?![\w-])")
# An index or registry other than the public ones, in any spelling a configuration may have.
HOST = re.compile(
    r"(?:index[-_]url|extra[-_]index|find[-_]links|trusted[-_]host|registry)\s*[=:]?\s*[\"']?https?://", re.I
)


def tracked() -> list[Path]:
    """The files git knows; skipped where there is no repository (an unpacked archive)."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [
        ROOT / name.decode() for name in names.split(b"\0") if name and name.decode() != Path(__file__).name
    ]


def findings(pattern: re.Pattern[str]) -> list[str]:
    """`file:line: text` of every match in a tracked text file."""
    found: list[str] = []
    for path in tracked():
        if not path.is_file() or path == Path(__file__).resolve():
            continue
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    return found


def test_no_machine_paths() -> None:
    assert not findings(LOCAL)


def test_no_package_hosts() -> None:
    assert not findings(HOST)


@pytest.mark.parametrize("text", ["see /work/tree", '"/root/x"', "=/home/me/x", "(/Users/me)"])
def test_machine_paths_are_recognised(text: str) -> None:
    assert LOCAL.search(text)


@pytest.mark.parametrize("text", ["a/work/b", "https://x.org/root/y", "/workspace", "./root/", "blocks/root"])
def test_other_paths_are_not(text: str) -> None:
    assert not LOCAL.search(text)
