"""Blocks of code in Markdown, and how each is run.

`nl` and `yaml` are checked (and written to a file if they have a title), `python` is executed, the lines of
`sh` are run, and `text` is what the block above it prints.  Blocks of a page share a folder and a namespace.
Targets of make and scripts that take minutes have to be there, with their options; they are not run.
A comment in front of a block says what is special about it:

    <!-- finds NL0412 -->     the program has exactly these findings
    <!-- exits 1 -->          the command leaves with this code
    <!-- not run: why -->     nothing is done with it
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nldsl
from nldsl.cli import main

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(
    r"(?:^[ ]*<!--\s*(?P<marker>[^\n]*?)\s*-->\n+)?^(?P<indent>[ ]*)(?P<ticks>`{3,})(?P<info>[^\n`]*)\n"
    r"(?P<body>.*?)^(?P=indent)(?P=ticks)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]+)"')
_ELLIPSIS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
LANGUAGES = {"nl", "yaml", "python", "sh", "text", "json"}


@dataclass(frozen=True)
class Fence:
    """One block: language, title, text, what the comment in front of it says, and its line."""

    language: str
    title: str
    body: str
    marker: str
    line: int

    @property
    def skipped(self) -> str:
        """Why it is not run; empty if it is."""
        return self.marker.removeprefix("not run:").strip() if self.marker.startswith("not run:") else ""

    @property
    def exits(self) -> int:
        """The exit code of its commands."""
        return int(self.marker.removeprefix("exits")) if self.marker.startswith("exits") else 0

    @property
    def finds(self) -> set[str]:
        """The codes of its findings."""
        return set(re.findall(r"NL\d{4}", self.marker)) if self.marker.startswith("finds") else set()


def written_pages() -> list[Path]:
    """Every Markdown file that somebody wrote for readers."""
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    return sorted(found)


def fences(text: str) -> Iterator[Fence]:
    """The blocks of a page, from top to bottom."""
    for match in _FENCE.finditer(text):
        language, _, rest = match["info"].strip().partition(" ")
        title = _TITLE.search(rest)
        indent = match["indent"]
        body = "".join(line.removeprefix(indent) for line in match["body"].splitlines(keepends=True))
        marker = match["marker"] or ""
        known = marker.startswith(("not run:", "exits", "finds"))
        line = text.count("\n", 0, match.start("ticks")) + 1
        yield Fence(language, title[1] if title else "", body, marker if known else "", line)


@dataclass
class Page:
    """Runs the blocks of one page in a folder; `printed` is what the last one said."""

    folder: Path
    name: str
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})
    printed: str | None = None

    def run(self, fence: Fence) -> None:
        """Run one block; what is wrong is an assertion that names the page and the line."""
        place = f"{self.name}:{fence.line}"
        assert fence.language in LANGUAGES, f"{place}: `{fence.language}` blocks are not run"
        match fence.language:
            case "nl" | "yaml":
                self.check(fence, place)
            case "python":
                self.printed = self.execute(fence, place)
            case "sh":
                self.printed = "".join(self.command(line, fence.exits, place) for line in lines_of(fence))
            case "text":
                self.compare(fence, place)
            case "json":
                self.keep(fence, place)

    def check(self, fence: Fence, place: str) -> None:
        found = nldsl.check(fence.body)
        assert {d.code for d in found} == fence.finds, f"{place}: {[str(d) for d in found]}"
        if fence.title:
            (self.folder / fence.title).write_text(fence.body, encoding="utf-8")

    def keep(self, fence: Fence, place: str) -> None:
        """A file of objects, one per line."""
        assert fence.title and all(isinstance(json.loads(x), dict) for x in fence.body.splitlines()), place
        (self.folder / fence.title).write_text(fence.body, encoding="utf-8")

    def execute(self, fence: Fence, place: str) -> str:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.chdir(self.folder):
            exec(compile("\n" * fence.line + fence.body, place, "exec"), self.names)
        return said.getvalue()

    def command(self, line: str, exits: int, place: str) -> str:
        """What a command prints; a target of make has to be there."""
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            targets = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{words[1]}:", targets, re.MULTILINE), f"{place}: no target {words[1]}"
            return ""
        if words[0] == "python":
            known_script(words[1:], place)
            return ""
        assert words[0] == "nldsl", f"{place}: only nldsl is run, found `{words[0]}`"
        said = io.StringIO()
        code: object = 0
        with (
            contextlib.redirect_stdout(Out(said)),
            contextlib.redirect_stderr(said),
            contextlib.chdir(self.folder),
        ):
            try:
                main(words[1:])
            except SystemExit as left:
                code = left.code or 0
        assert code == exits, f"{place}: `{line}` left with {code}\n{said.getvalue()}"
        return said.getvalue()

    def compare(self, fence: Fence, place: str) -> None:
        """`...` stands for anything; spaces do not count."""
        assert self.printed is not None, f"{place}: there is no block above that prints"
        wanted, got = fence.body.strip() + "\n", self.printed.strip() + "\n"
        same = doctest.OutputChecker().check_output(wanted, got, _ELLIPSIS)
        assert same, f"{place}: expected\n{wanted}\nfound\n{got}"


def known_script(words: list[str], place: str) -> None:
    """A script of the repository that takes minutes: it is there, and so are its options."""
    path = f"{words[1].replace('.', '/')}.py" if words[0] == "-m" else words[0]
    found = [p for p in (ROOT / path, ROOT / path.removesuffix(".py") / "__main__.py") if p.is_file()]
    assert found, f"{place}: there is no {path}"
    text = found[0].read_text(encoding="utf-8")
    strange = [w for w in words if w.startswith("--") and w.partition("=")[0] not in text]
    assert not strange, f"{place}: {path} does not know {strange}"


class Out(io.TextIOWrapper):
    """Standard output in memory, bytes and text alike."""

    def __init__(self, said: io.StringIO) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)
        self.said = said

    def write(self, text: str) -> int:
        return self.said.write(text)

    @property
    def buffer(self) -> Any:
        """Bytes go where the text goes."""
        outer = self

        class Bytes(io.BytesIO):
            def write(self, data: Any) -> int:
                outer.said.write(bytes(data).decode(errors="replace"))
                return len(data)

        return Bytes()


def lines_of(fence: Fence) -> list[str]:
    """The commands of a block; a backslash joins lines."""
    joined = fence.body.replace("\\\n", " ")
    return [line for line in map(str.strip, joined.splitlines()) if line and not line.startswith("#")]
