"""Everything that stands in a block of code in README, docs and examples is run or checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.docs.fences import LANGUAGES, ROOT, Fence, Page, fences, written_pages

torch.set_num_threads(1)
PAGES = [path for path in written_pages() if any(fences(path.read_text(encoding="utf-8")))]
NOT_RUN = 2
"""How many blocks are marked as not run.  Raise it only with a reason in the marker."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[Fence]:
    return list(fences(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_block_of_a_page(path: Path, tmp_path: Path) -> None:
    page = Page(tmp_path, name(path))
    for fence in blocks(path):
        if not fence.skipped:
            page.run(fence)


def test_blocks_that_are_not_run_are_few_and_say_why() -> None:
    skipped = [
        (name(path), f.line, f.marker) for path in PAGES for f in blocks(path) if "not run" in f.marker
    ]
    assert all(len(marker.partition(":")[2].split()) >= 3 for _, _, marker in skipped), skipped
    assert len(skipped) == NOT_RUN, skipped


def test_every_block_has_a_language_that_is_run() -> None:
    strange = [(name(p), f.line, f.language) for p in PAGES for f in blocks(p) if f.language not in LANGUAGES]
    assert not strange
    assert sum(len(blocks(p)) for p in PAGES) > 100


@pytest.mark.parametrize(
    "text",
    [
        "```nl\nblock f(x) { return y }\n```",
        "<!-- finds NL0301 -->\n```nl\nblock f(x) { return x }\n```",
        "```python\nassert False\n```",
        "```sh\nnldsl check nothing_of_that_name\n```",
        "```sh\nrm -r /\n```",
        "```python\nprint(1)\n```\n```text\n2\n```",
        "```text\nout of nowhere\n```",
        "```js\n1\n```",
    ],
)
def test_a_block_that_is_wrong_fails(text: str, tmp_path: Path) -> None:
    """The checks can fail."""
    page = Page(tmp_path, "wrong.md")
    with pytest.raises(AssertionError):
        for fence in fences(text):
            page.run(fence)
