"""Formatting: canonical, stable, and no comment lost."""

from __future__ import annotations

import pytest

from nldsl.diagnostics import SpecError
from nldsl.source import SourceFile
from nldsl.syntax import format_text
from tests.unit import language_snippets as snippets


def formatted(text: str, name: str = "t.nl") -> str:
    once = format_text(SourceFile(name, text))
    assert format_text(SourceFile(name, once)) == once
    return once


UGLY = """\


# about the file
nldsl 1   # version
use   "a.nl"
use "b.nl"  # second
block f( x ,n=3 , ){ # head
    # first

    # second
  a=x+1;bb=2*(x)   # two


  ccc=f( a,   # one
     bb )  # two
  M[ k ]<-v # write
    # between
    by gd(lr=1e-3)   minimize dot
  if a{b=1}else{b=2}   # choice
  if a { # yes
    b=1
    # end of yes
  } # after yes
  else if c { b = 2 }
  else { # no
  b=3 }  # end
  level fast   every 1 token{memory A=matrix()}
  level slowly every 16 tokens { memory B, C = mlp( 4 ) } # levels
  write S{[k]<-v;[kk]<-0 minimize l2} retain a  # tail
  return a  # out
  # last
}
train h{matrices by muon(lr=1)
embeddings,head by adamw(lr=1)}
variant a of b
# end
"""

NEAT = """\
# about the file
nldsl 1  # version

use "a.nl"
use "b.nl"  # second

block f(x, n = 3) {  # head
  # first

  # second
  a  = x + 1
  bb = 2 * x  # two

  # one
  # two
  ccc = f(a, bb)
  # write
  # between
  M[k] <- v  minimize dot  by gd(lr = 1e-3)
  if a { b = 1 } else { b = 2 }  # choice
  if a {  # yes
    b = 1
    # end of yes
  } else if c {  # after yes
    b = 2
  } else {  # no
    b = 3
  }  # end
  level fast   every 1 token   { memory A    = matrix() }
  level slowly every 16 tokens { memory B, C = mlp(4) }  # levels
  write S {  # tail
    [k] <- v
    [kk] <- 0  minimize l2
  }  retain a
  return a  # out
  # last
}

train h {
  matrices         by muon(lr = 1)
  embeddings, head by adamw(lr = 1)
}

variant a of b
# end
"""


def test_comment_behind_a_header() -> None:
    text = "block f(x){  # twice\n return 2*x}"
    assert format_text(SourceFile("a.nl", text)).startswith("block f(x) {  # twice\n")


def test_canonical_form_with_all_its_comments() -> None:
    assert formatted(UGLY) == NEAT


@pytest.mark.parametrize("name", snippets.TEXTS)
def test_programs_of_the_description_keep_their_comments(name: str) -> None:
    text = snippets.TEXTS[name]
    assert formatted(text).count("#") == text.count("#")


def test_long_lines_are_broken_before_clauses_and_inside_brackets() -> None:
    names = ", ".join(f"parameter_{i} = {i}" for i in range(12))
    text = (
        f"block f({names}) {{\n  M[k] <- v minimize huber({names}) by gd(lr = 1) retain a\n"
        f"  y = g({names})\n  return [{names.replace(' = ', ' - ')}]\n}}\n"
    )
    found = formatted(text)
    assert "\n) {\n" in found and "\n      by gd(lr = 1)\n" in found
    assert max(len(line) for line in found.splitlines() if "huber" not in line) <= 120


def test_numbers_keep_their_spelling() -> None:
    assert "1e-3 + 2.50 + 3" in formatted("block f() { return 1e-3+2.50+3 }")


def test_yaml_keeps_its_layout() -> None:
    text = "nldsl: 1   \n# comment\nblock f:   {takes: [x],  body: [return x]}  # tail\n\n\n"
    assert formatted(text, "t.yaml") == (
        "nldsl: 1\n# comment\nblock f:   {takes: [x],  body: [return x]}  # tail\n"
    )


def test_faulty_texts_are_not_formatted() -> None:
    with pytest.raises(SpecError):
        format_text(SourceFile("t.nl", "block f(x) { return x ^ }"))


def test_empty_files() -> None:
    assert formatted("") == "" and formatted("# only\n\n\n# comments") == "# only\n\n# comments\n"
