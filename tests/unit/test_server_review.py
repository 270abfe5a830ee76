"""What is legal and can hardly be meant is said in the editor too, unless a comment allows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.review import check
from nldsl.server import Document

ROOT = Path(__file__).resolve().parents[2]
FADES = """\
block b(x) {
  level context every 1 token { memory S, T = matrix() }
  k = l2norm(linear(x))
  S[k] <- x by gd(lr = 0.5)
  T[k] <- x by gd(lr = 0.5)
  y = T[k]
  return S[k]
}
"""


def codes(document: Document) -> list[str]:
    return sorted(r.finding.code for r in document.remarks)


def test_the_editor_says_what_check_says() -> None:
    document = Document("a.nl", FADES)
    assert codes(document) == sorted(d.code for d in check(FADES))
    assert "NL0508" in codes(document)


def test_a_change_elsewhere_keeps_findings_and_a_repair_removes_them() -> None:
    document = Document("a.nl", FADES)
    before = codes(document)
    document.update(FADES + "\nblock other(x) { return x }\n")
    assert codes(document) == before
    document.update(FADES.replace("return S[k]", "return S[k] + y"))
    assert codes(document) == []


def test_comments_allow() -> None:
    text = FADES.replace("  level", "  # allow NL0508: kept for comparison\n  level").replace(
        "  y = T[k]\n", ""
    )
    assert "NL0508" not in codes(Document("a.nl", text))


@pytest.mark.parametrize("name", ["blocks/titans_mlp", "blocks/self_modifying_titans", "models/hope"])
def test_the_library_is_free_of_findings(name: str) -> None:
    path = ROOT / "specs" / f"{name}.nl"
    assert codes(Document(str(path), path.read_text(encoding="utf-8"), path)) == []
