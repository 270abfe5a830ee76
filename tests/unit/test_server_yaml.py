"""What the server knows about a specification in YAML."""

from __future__ import annotations

from nldsl.server import Document, complete, references
from nldsl.server.hover import hover

TEXT = "nldsl: 1\nblock f:\n  takes: [x]\n  body:\n    - y = sigmod(x)\n    - return y\n"


def test_yaml_documents() -> None:
    document = Document("a.nl.yaml", TEXT)
    remark = document.remarks[0]
    assert [r.finding.code for r in document.remarks] == ["NL0302"]
    assert TEXT[remark.start : remark.end] == "sigmod"
    good = Document("a.nl.yaml", TEXT.replace("sigmod", "sigmoid"))
    found = hover(good, good.text.index("y = sig"))
    assert found is not None and "vector [48]" in found[0]
    assert [good.text[o.start : o.end] for o in references(good, good.text.index("y = "))] == ["y", "y"]
    assert "tanh" in [p.label for p in complete(good, good.text.index("sigmoid(") + 3)[0]]
