"""`# allow CODE`: what it silences, what it cannot, and when it is idle."""

from __future__ import annotations

import pytest

from nldsl.review import check
from nldsl.source import SourceFile

HEAD = "block f(x) {\n  level a every 1 token { memory S = matrix() }\n  k = l2norm(linear(x))\n"
WRITE = "  S[k] <- x  by gd(lr = 3)"


def text(*lines: str) -> str:
    return HEAD + "\n".join(lines) + "\n  return S[k]\n}\n"


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        ((WRITE,), ["NL0430"]),
        ((WRITE + "  # allow NL0430: on purpose",), []),
        (("  # allow NL0430: on purpose", WRITE), []),
        (("  # allow NL0430", "  # and a word about why", WRITE), []),
        (("  # allow NL0431, NL0430: both", WRITE), ["NL0332"]),
        (("  # allow NL0430", "", WRITE), ["NL0332", "NL0430"]),
        (("  # we allow NL0430 to stand", WRITE), ["NL0430"]),
        (("  # allow NL0507: long runs only", WRITE + "  # allow NL0430"), []),
    ],
)
def test_comments_allow_warnings_beside_them(lines: tuple[str, ...], codes: list[str]) -> None:
    assert sorted(d.code for d in check(text(*lines))) == codes


def test_errors_cannot_be_allowed() -> None:
    assert [d.code for d in check(text("  y = z  # allow NL0301, NL0323: no", WRITE))][-1] == "NL0301"


def test_a_comment_in_yaml() -> None:
    source = (
        "nldsl: 1\nblock f:\n  takes: [x]\n  levels:\n    a: {every: 1 token, memories: {S: matrix()}}\n"
        "  body:\n    - k = l2norm(x)\n    # allow NL0430: as in the paper\n    - S[k] <- x by gd(lr = 3)\n"
        "    - return S[k]\n"
    )
    assert check(SourceFile("a.yaml", source)) == []
    assert [d.code for d in check(SourceFile("a.yaml", source.replace("allow", "note")))] == ["NL0430"]


def test_what_the_library_allows_itself_is_allowed_for_those_who_use_it() -> None:
    assert (
        check("model m(tokens) {\n  x = embed(tokens, 16, 32)\n  return head(titans_mlp(x), 16)\n}\n") == []
    )


def test_one_program_of_a_file_says_nothing_about_comments_elsewhere() -> None:
    other = text(WRITE + "  # allow NL0430").replace("block f", "block g")
    assert check(text("  S[k] <- x  by gd(lr = 0.5)") + other, block="f", arguments={"x": 8}) == []
