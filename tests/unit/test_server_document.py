"""What the server knows about a text: findings, hover, completion, names, fixes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.diagnostics import catalogue
from nldsl.review import check
from nldsl.server import (
    Document,
    RenameError,
    complete,
    definition,
    fixes,
    foldings,
    outline,
    references,
    rename,
)
from nldsl.server.completion import explain_proposal
from nldsl.server.help import signature_help
from nldsl.server.hover import hover
from nldsl.server.lines import Lines
from nldsl.server.sections import cut
from nldsl.server.words import WORDS

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.nl"))
TEXT = """\
# \N{SNAKE} one
block mixer(x, heads = 4, gain = 1.0) {
  level context every 1 token { memory S = matrix() per head }
  q     = l2norm(split(linear(x), heads))
  v     = split(gain * linear(x), heads)
  beta  = sigmoid(linear(x, heads))
  y     = S[q]
  S[q] <- v  minimize l2  by gd(lr = beta)  retain beta
  return linear(merge(y))
}

model tiny(tokens, vocab = 256, dim = 64, mix = mixer) {
  x = embed(tokens, vocab, dim)
  repeat 2 { x = x + mix(norm(x)) }
  return head(norm(x), vocab)
}

train tiny {
  task next_token
  level outer every 1 step { matrices by muon(lr = 2e-2);  rest, embeddings, head, norms by adamw(lr = 3e-4) }
}
variant small of tiny(dim = 32)
"""


def codes(document: Document) -> list[str]:
    return sorted(r.finding.code for r in document.remarks)


def marked(text: str) -> tuple[Document, int]:
    """A document and the place of the `|` in its text."""
    offset = text.index("|")
    return Document("a.nl", text[:offset] + text[offset + 1 :]), offset


def labels(text: str) -> list[str]:
    return [p.label for p in complete(*marked(text))[0]]


def shown(document: Document, word: str, nth: int = 0) -> str:
    offset = -1
    for _ in range(nth + 1):
        offset = document.text.index(word, offset + 1)
    found = hover(document, offset)
    return found[0] if found is not None else ""


# --- findings --------------------------------------------------------------------------------------


def test_the_example_is_good() -> None:
    assert not Document("a.nl", TEXT).remarks


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_library_specs_give_what_check_gives(path: Path) -> None:
    document = Document(path.name, path.read_text(encoding="utf-8"), path)
    assert codes(document) == sorted(d.code for d in check(path))


@pytest.mark.parametrize("code", [c for c, e in catalogue().items() if e.failing])
def test_findings_are_those_of_check(code: str) -> None:
    """Cut into sections, a faulty text has the same findings at the same places."""
    entry = catalogue()[code]
    name = "a.yaml" if entry.form == "yaml" else "a.nl"
    document = Document(name, entry.failing)
    source = entry.failing if "\n" in entry.failing else f"{entry.failing}\n"
    expected = [d for d in check(source) if d.span is not None]
    # Each block of a circle, or of a chain that is too long, says so: a cursor may be in any of them.
    if code in ("NL0315", "NL0814"):
        assert set(codes(document)) == {code}
    else:
        assert codes(document) == sorted(d.code for d in expected)
    own = {(d.code, d.span.start) for d in expected if d.span and d.span.file.name.startswith("<text>")}
    assert own <= {(r.finding.code, r.start) for r in document.remarks} | {
        (r.finding.code, r.start - 1) for r in document.remarks
    }


def test_a_change_is_checked_as_a_new_text() -> None:
    """Whatever was kept from earlier versions, the findings are those of a fresh document."""
    document = Document("a.nl", TEXT)
    assert not document.remarks
    versions = [
        TEXT.replace("sigmoid", "sigmod"),
        TEXT.replace("heads = 4", "heads = 5"),
        TEXT.replace("block mixer", "block mixture"),
        TEXT.replace("S[q] <- v", "S[q] <- w"),
        "\n\n# more\n" + TEXT,
        TEXT.replace("dim = 32", "dim = 30"),
        TEXT.replace("variant small", "variant tiny"),
        TEXT.replace("}\n\nmodel", "\n\nmodel"),
        TEXT,
    ]
    for text in versions:
        document.update(text)
        fresh = Document("a.nl", text)
        assert [(r.finding.code, r.start, r.end, r.finding.message) for r in document.remarks] == [
            (r.finding.code, r.start, r.end, r.finding.message) for r in fresh.remarks
        ]
    assert not document.remarks


def test_only_what_a_change_reaches_is_elaborated() -> None:
    document = Document("a.nl", TEXT + "\nblock other(x) { return 2 * x }\n")
    assert not document.remarks
    before = {c.item.name.id: c for c in document.checker.checked.values()}
    document.update(document.text.replace("2 * x", "3 * x"))
    assert not document.remarks
    after = {c.item.name.id: c for c in document.checker.checked.values()}
    assert after["tiny"] is before["tiny"]
    assert after["other"] is not before["other"]


def test_a_change_reaches_a_definition_that_is_handed_on() -> None:
    """The model of the library does not mention the block that a variant gives it."""
    text = (
        "variant mine of transformer(mixer = plain)\nblock plain(x, heads) { return linear(x, heads * 4) }\n"
    )
    document = Document("a.nl", text)
    before = codes(document)
    assert before
    for changed in (text.replace("heads * 4", "dim(x) + 0 * heads"), text.replace("linear", "liner"), text):
        document.update(changed)
        assert codes(document) == codes(Document("a.nl", changed))
    assert codes(document) == before


def test_findings_of_used_files_stand_at_the_use(tmp_path: Path) -> None:
    (tmp_path / "part.nl").write_text("block part(x) { return sigmod(x) }\n")
    text = 'use "part.nl"\nmodel m(tokens) {\n  x = part(embed(tokens, 8, 8))\n  return head(x, 8)\n}\n'
    document = Document("main.nl", text, tmp_path / "main.nl")
    remark = next(r for r in document.remarks if r.finding.code == "NL0302")
    assert text[remark.start :].startswith("part(embed")
    (tmp_path / "part.nl").write_text("block part(x) { return 2 * sigmoid(x) }\n")
    document.refresh()
    assert not document.remarks


def test_sections_begin_at_items() -> None:
    text = '# a\nuse "x.nl"\n\n# b\n# c\nblock f(x) {\n  block = 1\n}\nmap m(z) { return z }\n'
    assert [text[a:].split("\n")[0] for a in cut(text)] == ["# a", "# b", "map m(z) { return z }"]


# --- positions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_columns_are_utf16(end: str) -> None:
    text = f"# \N{SNAKE}{end}x = 1  # \N{CJK UNIFIED IDEOGRAPH-6F22}\N{MUSICAL SYMBOL G CLEF}z{end}"
    lines = Lines(text)
    z = text.index("z")
    assert lines.position(z) == (1, 12)
    for offset in range(len(text) + 1):
        if text[offset - 1 : offset + 1] != "\r\n":
            back = lines.offset(*lines.position(offset))
            assert back == offset or text[back:offset].strip("\r\n") == ""
    assert lines.offset(0, 3) == 2
    assert lines.offset(99, 99) == len(text)
    assert lines.offset(0, 99) == 3


# --- hover -----------------------------------------------------------------------------------------


def test_hover_shows_shapes() -> None:
    document = Document("a.nl", TEXT)
    assert "headed [4, 16] in `tiny`" in shown(document, "q     =")
    assert "vector [4] in `tiny`" in shown(document, "beta)  retain")
    assert "`64` in `tiny`" in shown(document, "dim = 64")
    assert "vector [256]" in shown(document, "head(norm")


def test_hover_shows_memories() -> None:
    text = shown(Document("a.nl", TEXT), "S = matrix")
    for part in ("level `context`, every token", "4 heads", "minimizes `l2` by `gd`", "S_t = ", "bytes"):
        assert part in text


def test_hover_shows_the_language() -> None:
    document = Document("a.nl", TEXT)
    assert "sigmoid(x)" in shown(document, "sigmoid")
    assert "gives vector [4]" in shown(document, "sigmoid")
    assert WORDS["retain"].text in shown(document, "retain")
    assert "specs/rules/adamw.nl" in shown(document, "adamw")
    assert "one" in shown(document, "mixer(x")
    assert "writes" in shown(document, "<-")
    assert shown(document, "one") == ""


# --- completion ------------------------------------------------------------------------------------

HEAD = """\
block f(x, heads = 4) {
  level c every 1 token { memory S = matrix() per head }
  q = split(x, heads)
"""


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("|", ["return", "S", "q", "repeat"], ["sigmoid", "minimize"]),
        ("y = |", ["sigmoid", "q", "x", "heads", "S", "self_modifying_titans"], ["y", "l2", "gd"]),
        ("y = S[|", ["q", "x"], ["return"]),
        ("S[q] <- q |", ["by", "minimize", "retain", "gradient"], ["sigmoid"]),
        ("S[q] <- q by gd(lr = 1) |", ["retain"], ["by"]),
        ("S[q] <- q minimize |", ["l2", "huber"], ["gd", "sigmoid"]),
        ("S[q] <- q by |", ["gd", "dgd", "momentum"], ["l2"]),
        ("S[q] <- q by dgd(|", ["lr", "rate", "eps"], ["beta"]),
        ("S[q] <- q by dgd(lr = 1, |", ["rate"], ["lr"]),
        ("y = norm(x, |", ["eps"], []),
        ("level d every 16 |", ["tokens", "steps"], ["sigmoid"]),
        ("level d every 16 tokens { |", ["memory"], ["return"]),
        ("level d every 16 tokens { memory M = |", ["matrix", "mlp", "softmax"], ["gd"]),
        ("level d every 16 tokens { memory M = matrix() |", ["per", "init", "reset"], ["by"]),
        ("level d every 16 tokens { memory M = mlp() init |", ["zero", "learned", "S"], []),
        ("write each of |", ["S"], ["q"]),
        ("y = 1  # by |", [], ["gd"]),
    ],
)
def test_completion_fits_the_place(line: str, wanted: list[str], unwanted: list[str]) -> None:
    found = labels(f"{HEAD}  {line}\n  return q\n}}\n")
    assert set(wanted) <= set(found)
    assert not set(unwanted) & set(found)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("|", ["block", "model", "train", "variant"]),
        ("train |", ["hope"]),
        ("variant a of |", ["hope", "transformer"]),
        ("variant a of hope(|", ["dim", "depth"]),
        ("train hope {\n  |\n}", ["matrices", "rest", "task", "level"]),
        ("train hope {\n  task |\n}", ["next_token"]),
        ("train hope {\n  rest by |\n}", ["adamw", "muon"]),
        ("train hope {\n  rest by adamw(lr = |)\n}", ["cosine", "linear"]),
        ("train hope {\n  rest by adamw(lr = cosine(|))\n}", ["warmup", "floor"]),
        ("rule r(lr) {\n  W = W - lr * |\n}", ["g", "lr", "orthogonalize"]),
        ("map m(z) {\n  return |\n}", ["z", "weight", "mlp"]),
    ],
)
def test_completion_of_items(text: str, wanted: list[str]) -> None:
    assert set(wanted) <= set(labels(text))


def test_completion_of_files(tmp_path: Path) -> None:
    (tmp_path / "part.nl").write_text("block part(x) { return x }\n")
    document = Document("main.nl", 'use "', tmp_path / "main.nl")
    assert [p.label for p in complete(document, 5)[0]] == ["part.nl"]


def test_every_proposal_explains_itself() -> None:
    document, offset = marked(f"{HEAD}  y = |\n  return y\n}}\n")
    for proposal in complete(document, offset)[0]:
        if proposal.about[0] in ("primitive", "block"):
            assert explain_proposal(document, proposal.about)


def test_signatures() -> None:
    found = signature_help(*marked(f"{HEAD}  y = linear(x, |\n}}\n"))
    assert found is not None and found.label == "linear(x, out, bias = false)" and found.active == 1
    found = signature_help(*marked(f"{HEAD}  S[q] <- q by dgd(rate = |\n}}\n"))
    assert found is not None and found.active == 1


# --- names -----------------------------------------------------------------------------------------


def places(document: Document, word: str) -> list[int]:
    return [document.lines.position(o.start)[0] for o in references(document, document.text.index(word))]


def test_references_respect_scopes() -> None:
    document = Document("a.nl", TEXT)
    assert places(document, "x, heads") == [1, 3, 4, 5]
    assert places(document, "S = matrix") == [2, 6, 7]
    assert places(document, "mixer(x") == [1, 11]
    assert places(document, "dim = 64") == [11, 12, 21]


def test_definitions() -> None:
    document = Document("a.nl", TEXT)
    here = definition(document, TEXT.index("S[q] <-"))
    assert here is not None and TEXT[here.start :].startswith("S = matrix")
    away = definition(document, TEXT.index("adamw"))
    assert away is not None and away.path is not None and away.path.name == "adamw.nl"
    argument = definition(document, TEXT.index("lr = 3e-4"))
    assert argument is not None and argument.path == away.path and argument.start > away.start
    assert definition(document, TEXT.index("sigmoid")) is None


def test_rename() -> None:
    document = Document("a.nl", TEXT)
    changed = TEXT
    for start, end, text in sorted(rename(document, TEXT.index("dim = 64"), "width"), reverse=True):
        changed = changed[:start] + text + changed[end:]
    assert "width = 64" in changed and "small of tiny(width = 32)" in changed and "vocab, width)" in changed
    assert not Document("a.nl", changed).remarks


@pytest.mark.parametrize(
    ("word", "name", "why"),
    [
        ("sigmoid", "a", "word of the language"),
        ("adamw", "a", "another file"),
        ("q     =", "2q", "not a name"),
        ("q     =", "v", "means something else"),
        ("q     =", "self", "word of the language"),
        ("mixer", "linear", "word of the language"),
    ],
)
def test_rename_refuses(word: str, name: str, why: str) -> None:
    with pytest.raises(RenameError, match=why):
        rename(Document("a.nl", TEXT), TEXT.index(word), name)


def test_rename_of_a_level_follows_paths() -> None:
    text = (
        "block f(x) {\n  level slow every 16 tokens { memory F = mlp() }\n  F minimizes task by gd(lr = 1)\n"
        '  return F[x]\n}\nvariant v of m { level "f.slow" every 32 tokens }\n'
    )
    edits = rename(Document("a.nl", text), text.index("slow"), "late")
    assert [text[a:b] for a, b, _ in edits] == ["slow", "slow"]


def test_outline_and_folding() -> None:
    document = Document("a.nl", TEXT)
    entries = outline(document)
    assert [(e.name, e.kind) for e in entries] == [
        ("mixer", "block"),
        ("tiny", "model"),
        ("train tiny", "train"),
        ("small", "variant"),
    ]
    assert [(c.name, [m.name for m in c.children]) for c in entries[0].children] == [("context", ["S"])]
    assert (1, 9) in foldings(document)


# --- fixes -----------------------------------------------------------------------------------------


def test_nearest_names_are_offered() -> None:
    document = Document("a.nl", TEXT.replace("sigmoid(", "sigmod("))
    found = fixes(document, document.text.index("sigmod"), document.text.index("sigmod"))
    assert [(f.title, f.text, document.text[f.start : f.end]) for f in found] == [
        ("change `sigmod` to `sigmoid`", "sigmoid", "sigmod")
    ]


def test_edits_of_findings_are_offered() -> None:
    seen = 0
    for entry in catalogue().values():
        if not entry.failing:
            continue
        document = Document("a.yaml" if entry.form == "yaml" else "a.nl", entry.failing)
        for remark in document.remarks:
            if remark.finding.edit is not None:
                seen += bool(fixes(document, remark.start, remark.end))
    assert seen > 0
