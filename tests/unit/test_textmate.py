"""The TextMate grammar, by tokenising the library with it: as the lexer sees it, and as VS Code does."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pygments.lexers import get_lexer_by_name
from pygments.token import Token, _TokenType

from tests.unit.npm import node_modules

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.nl"))
GRAMMAR = json.loads((ROOT / "grammars" / "nldsl.tmLanguage.json").read_text(encoding="utf-8"))

SCOPES: dict[_TokenType, tuple[str, ...]] = {
    Token.Comment.Single: ("comment.line",),
    Token.Literal.String.Double: ("string.quoted",),
    Token.Literal.Number: ("constant.numeric",),
    Token.Keyword.Declaration: ("keyword.declaration",),
    Token.Keyword.Namespace: ("keyword.control.import",),
    Token.Keyword.Type: ("storage.modifier",),
    Token.Keyword.Constant: ("constant.language",),
    Token.Keyword: ("keyword.control", "keyword.other"),
    Token.Name.Class: ("entity.name.type", "entity.other.inherited-class"),
    Token.Name.Namespace: ("entity.name.namespace",),
    Token.Name.Function: ("entity.name.function",),
    Token.Name: ("", "variable.other"),
    Token.Operator.Word: ("keyword.operator.logical",),
    Token.Operator: ("keyword.operator",),
}
"""What each kind of token of the lexer is called in the grammar."""


def rules(patterns: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rules of a list, in order, with what it includes."""
    for pattern in patterns:
        if "include" in pattern:
            yield from rules([GRAMMAR["repository"][pattern["include"].removeprefix("#")]])
        elif "match" in pattern or "begin" in pattern:
            yield pattern
        else:
            yield from rules(pattern["patterns"])


def tokenise(line: str) -> list[str]:
    """The scope of every character of a line: the first rule at the leftmost match, as TextMate does."""
    scopes, at = [""] * len(line), 0
    while at < len(line):
        found = [
            (match.start(), order, rule, match)
            for order, rule in enumerate(rules(GRAMMAR["patterns"]))
            if (match := re.compile(rule.get("match") or rule["begin"]).search(line, at))
        ]
        if not found:
            break
        _, _, rule, match = min(found, key=lambda one: one[:2])
        end = match.end()
        if "begin" in rule:
            inside = re.compile(rf"(?:{rule['patterns'][0]['match']}|.)*?(?:{rule['end']})")
            closing = inside.match(line, end)
            assert closing is not None
            end = closing.end()
        scopes[match.start() : end] = [rule.get("name", "")] * (end - match.start())
        for number, capture in rule.get("captures", {}).items():
            a, b = match.span(int(number))
            scopes[a:b] = [capture["name"]] * (b - a)
        at = max(end, at + 1)
    return scopes


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_the_grammar_sees_what_the_lexer_sees(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    scopes = [scope for line in lines for scope in (*tokenise(line.rstrip("\n")), "")]
    at = 0
    for kind, value in get_lexer_by_name("nldsl").get_tokens("".join(lines)):
        allowed = SCOPES.get(kind)
        if allowed is not None and value.strip():
            found = set(scopes[at : at + len(value)])
            assert len(found) == 1 or kind is Token.Literal.String.Double, (value, found)
            name = scopes[at]
            assert name in allowed or any(part and name.startswith(part) for part in allowed), (value, name)
        at += len(value)
    assert at == len(scopes)


def test_the_grammar_tells_a_word_from_a_name() -> None:
    line = 'x = head(norm(task_x), vocab)   # per head, "quoted"'
    scopes = tokenise(line)
    assert scopes[line.index("head")].startswith("entity.name.function")
    assert scopes[line.index("task_x")] == ""
    assert set(scopes[line.index("#") :]) == {"comment.line.number-sign.nldsl"}
    text = tokenise('use "a # b.nl"  # c')
    assert text[7].startswith("string") and text[-1].startswith("comment")


_SCRIPT = """
const vsctm = require("MODULES/vscode-textmate");
const oniguruma = require("MODULES/vscode-oniguruma");
const fs = require("fs");
(async () => {
  await oniguruma.loadWASM(fs.readFileSync("MODULES/vscode-oniguruma/release/onig.wasm").buffer);
  const registry = new vsctm.Registry({
    onigLib: Promise.resolve({
      createOnigScanner: (p) => new oniguruma.OnigScanner(p),
      createOnigString: (s) => new oniguruma.OnigString(s),
    }),
    loadGrammar: async () => vsctm.parseRawGrammar(fs.readFileSync("GRAMMAR", "utf8"), "a.json"),
  });
  const grammar = await registry.loadGrammar("source.nldsl");
  const lines = JSON.parse(fs.readFileSync(0, "utf8"));
  let stack = vsctm.INITIAL;
  const answers = lines.map((line) => {
    const { tokens, ruleStack } = grammar.tokenizeLine(line, stack);
    stack = ruleStack;
    return tokens.map((t) => [t.startIndex, t.endIndex, t.scopes.slice(1)]);
  });
  process.stdout.write(JSON.stringify(answers));
})();
"""


@pytest.mark.long
def test_vs_code_tokenises_the_same(tmp_path: Path) -> None:
    modules = node_modules(tmp_path, "vscode-textmate@9", "vscode-oniguruma@2")
    script = tmp_path / "tokenise.js"
    grammar = (ROOT / "grammars" / "nldsl.tmLanguage.json").as_posix()
    script.write_text(_SCRIPT.replace("MODULES", modules.as_posix()).replace("GRAMMAR", grammar))
    lines = [line for path in SPECS for line in path.read_text(encoding="utf-8").splitlines()]
    done = subprocess.run(
        ["node", str(script)],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line, tokens in zip(lines, json.loads(done.stdout), strict=True):
        scopes = tokenise(line)
        for start, end, names in tokens:
            outer = names[0] if names else ""
            assert all(scope == outer for scope in scopes[start : min(end, len(line))]), (line, names)
