"""Three kinds of text that come with Python: reference manual, source code, and the names of characters."""

from __future__ import annotations

import random
import re
import shutil
import sysconfig
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics

import torch
from torch import Tensor

from nldsl.train.data import Corpus, prepare

PART = 4096
"""The manual is cut into files of about this many bytes, so that some of every chapter are held out."""
NAMES = 512
"""Characters per file, drawn at random from the whole of Unicode."""
NUMBERED = re.compile(r"-[0-9A-F]{4,6}$|^HANGUL SYLLABLE ")
"""Characters whose names only count."""


@dataclass(frozen=True)
class Domain:
    """One kind of text; a label for tables."""

    name: str
    corpus: Corpus

    def held_out(self, rows: int, windows: int, length: int) -> Tensor:
        """Held-out text as `rows` streams, read on from window to window: `[windows, rows, length + 1]`.

        Neighbouring windows share a byte, which is the last target of one and the first input of the next.
        """
        text = torch.tensor(self.corpus.heldout, dtype=torch.int64)
        windows = min(windows, (len(text) // rows - 1) // length)
        if windows < 1:
            raise SystemExit(f"{self.name}: {len(text)} bytes held out are too few for {rows} windows")
        step = len(text) // rows
        streams = [
            text[r * step : r * step + windows * length + 1].unfold(0, length + 1, length)
            for r in range(rows)
        ]
        return torch.stack(streams, 1)


def of_python(folder: Path, length: int) -> list[Domain]:
    """The three domains, written below `folder`; they depend on the version of Python only."""
    sources = {
        "manual": write_manual(folder / "manual"),
        "code": write_code(folder / "code"),
        "names": write_names(folder / "names"),
    }
    return [
        Domain(name, prepare(source, folder / f"{name}.shards", length=length))
        for name, source in sources.items()
    ]


def of_folders(given: list[str], folder: Path, length: int) -> list[Domain]:
    """One domain per file or folder, named after it."""
    names = [Path(source).stem for source in given]
    if len(set(names)) < len(names):
        raise SystemExit(f"the domains need different names, found {', '.join(names)}")
    return [
        Domain(name, prepare(source, folder / f"{name}.shards", length=length))
        for name, source in zip(names, given, strict=True)
    ]


def write_manual(folder: Path) -> str:
    """The chapters of the language reference that `help()` shows: English prose with examples."""
    folder.mkdir(parents=True, exist_ok=True)
    for topic, text in sorted(topics.topics.items()):
        lines: list[str] = []
        part = 0
        for line in text.splitlines(keepends=True):
            lines.append(line)
            if sum(map(len, lines)) >= PART:
                (folder / f"{topic}-{part}.txt").write_text("".join(lines), encoding="utf-8")
                lines, part = [], part + 1
        if lines:
            (folder / f"{topic}-{part}.txt").write_text("".join(lines), encoding="utf-8")
    return str(folder)


def write_code(folder: Path) -> str:
    """The modules of Python's library that stand alone (the packages hold the text of the manual, too)."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        shutil.copyfile(path, folder / path.name)
    return str(folder)


def write_names(folder: Path) -> str:
    """The names of Unicode's characters in small letters, one a line, in an order drawn once and for all."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [unicodedata.name(chr(code), "") for code in range(0x110000)]
    names = [name.lower() for name in found if name and not NUMBERED.search(name)]
    random.Random(0).shuffle(names)
    for start in range(0, len(names), NAMES):
        text = "\n".join(names[start : start + NAMES]) + "\n"
        (folder / f"{start // NAMES:03}.txt").write_text(text, encoding="utf-8")
    return str(folder)
