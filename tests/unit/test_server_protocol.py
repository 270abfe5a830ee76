"""The language server over stdio, asked by a real client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pygls")

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

TEXT = """\
# \N{SNAKE}\N{SNAKE} snakes
block f(x, heads = 4) {  # \N{CJK UNIFIED IDEOGRAPH-6F22}
  level c every 1 token { memory S = matrix() per head }
  k = l2norm(split(linear(x), heads))
  S[k] <- k  by gd(lr = 0.1); y = S[k];  # \N{SNAKE}
  return sigmod(merge(y))  # \N{SNAKE}
}
"""


class Client:
    """A client with the messages the server sent."""

    def __init__(self) -> None:
        self.lsp = LanguageClient("test", "1")
        self.said: asyncio.Queue[lsp.PublishDiagnosticsParams] = asyncio.Queue()
        self.lsp.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(lambda said: self.said.put_nowait(said))
        self.version = 0

    async def start(self) -> lsp.InitializeResult:
        await self.lsp.start_io(sys.executable, "-m", "nldsl", "server", "--stdio")
        result = await self.lsp.initialize_async(lsp.InitializeParams(capabilities=lsp.ClientCapabilities()))
        self.lsp.initialized(lsp.InitializedParams())
        return result

    async def stop(self) -> None:
        await self.lsp.shutdown_async(None)
        self.lsp.exit(None)
        await self.lsp.stop()

    async def open(self, uri: str, text: str) -> lsp.PublishDiagnosticsParams:
        item = lsp.TextDocumentItem(uri, "nldsl", 1, text)
        self.lsp.text_document_did_open(lsp.DidOpenTextDocumentParams(item))
        return await self.next()

    def change(self, uri: str, text: str) -> None:
        self.version += 1
        document = lsp.VersionedTextDocumentIdentifier(self.version, uri)
        changes = [lsp.TextDocumentContentChangeWholeDocument(text)]
        self.lsp.text_document_did_change(lsp.DidChangeTextDocumentParams(document, changes))

    async def next(self) -> lsp.PublishDiagnosticsParams:
        return await asyncio.wait_for(self.said.get(), 60)

    def at(self, uri: str, line: int, column: int) -> dict[str, Any]:
        return {"text_document": lsp.TextDocumentIdentifier(uri), "position": lsp.Position(line, column)}


def talk(scenario: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        client = Client()
        await client.start()
        try:
            await scenario(client)
        finally:
            await client.stop()

    asyncio.run(asyncio.wait_for(run(), 120))


def ends(where: lsp.Range) -> tuple[int, int, int, int]:
    return where.start.line, where.start.character, where.end.line, where.end.character


async def check_diagnostics(client: Client, uri: str) -> None:
    found = await client.open(uri, TEXT)
    assert [(d.code, ends(d.range), d.source) for d in found.diagnostics] == [
        ("NL0302", (5, 9, 5, 15), "nldsl")
    ]
    assert "did you mean `sigmoid`?" in found.diagnostics[0].message


async def check_questions(client: Client, uri: str) -> None:
    """Line 4 has text behind the write; its columns count pairs of units only behind the snake."""
    document = lsp.TextDocumentIdentifier(uri)
    hover = await client.lsp.text_document_hover_async(lsp.HoverParams(**client.at(uri, 4, 34)))
    assert hover is not None and "memory S" in hover.contents.value
    items = await client.lsp.text_document_completion_async(lsp.CompletionParams(**client.at(uri, 5, 12)))
    proposal = next(i for i in items.items if i.label == "sigmoid")
    assert ends(proposal.text_edit.range) == (5, 9, 5, 12)
    full = await client.lsp.completion_item_resolve_async(proposal)
    assert "Logistic" in full.documentation.value
    where = await client.lsp.text_document_definition_async(lsp.DefinitionParams(**client.at(uri, 4, 2)))
    assert ends(where.range) == (2, 33, 2, 34)
    where = await client.lsp.text_document_definition_async(lsp.DefinitionParams(**client.at(uri, 4, 17)))
    assert where.uri.endswith("specs/rules/gd.nl")
    context = lsp.ReferenceContext(include_declaration=True)
    uses = await client.lsp.text_document_references_async(
        lsp.ReferenceParams(context=context, **client.at(uri, 4, 2))
    )
    assert [ends(u.range)[:2] for u in uses] == [(2, 33), (4, 2), (4, 34)]
    symbols = await client.lsp.text_document_document_symbol_async(lsp.DocumentSymbolParams(document))
    assert [s.name for s in symbols] == ["f"] and symbols[0].children[0].children[0].name == "S"
    folds = await client.lsp.text_document_folding_range_async(lsp.FoldingRangeParams(document))
    assert (1, 6) in [(f.start_line, f.end_line) for f in folds]
    tokens = await client.lsp.text_document_semantic_tokens_full_async(lsp.SemanticTokensParams(document))
    assert len(tokens.data) % 5 == 0 and tokens.data[0] == 1
    signature = await client.lsp.text_document_signature_help_async(
        lsp.SignatureHelpParams(**client.at(uri, 4, 20))
    )
    assert signature.signatures[0].label.startswith("gd(lr")


async def check_edits(client: Client, uri: str) -> None:
    document = lsp.TextDocumentIdentifier(uri)
    here = lsp.Range(lsp.Position(5, 10), lsp.Position(5, 10))
    actions = await client.lsp.text_document_code_action_async(
        lsp.CodeActionParams(document, here, lsp.CodeActionContext([]))
    )
    assert actions[0].edit.changes[uri][0].new_text == "sigmoid"
    edit = await client.lsp.text_document_rename_async(lsp.RenameParams(new_name="M", **client.at(uri, 4, 2)))
    assert len(edit.changes[uri]) == 3
    with pytest.raises(JsonRpcException, match="word of the language"):
        await client.lsp.text_document_rename_async(lsp.RenameParams(new_name="a", **client.at(uri, 3, 7)))
    client.change(uri, TEXT.replace("sigmod", "sigmoid").replace("S = matrix()", "S  =  matrix()"))
    assert not (await client.next()).diagnostics
    edits = await client.lsp.text_document_formatting_async(
        lsp.DocumentFormattingParams(document, lsp.FormattingOptions(2, True))
    )
    assert "S = matrix() per head" in edits[0].new_text


async def check_typing(client: Client, uri: str) -> None:
    """A burst of keys is answered once; nonsense is answered too."""
    for end in range(10, len(TEXT), 40):
        client.change(uri, TEXT[:end])
    client.change(uri, TEXT.replace("sigmod", "sigmoid"))
    found = await client.next()
    while found.version != client.version:
        found = await client.next()
    assert not found.diagnostics
    client.change(uri, "}}}{{{ block (( \0 \N{SNAKE}")
    assert (await client.next()).diagnostics
    nothing = await client.lsp.text_document_hover_async(lsp.HoverParams(**client.at(uri, 99, 99)))
    assert nothing is None
    client.lsp.text_document_did_close(lsp.DidCloseTextDocumentParams(lsp.TextDocumentIdentifier(uri)))
    assert not (await client.next()).diagnostics


def test_a_session(tmp_path: Path) -> None:
    uri = (tmp_path / "a b.nl").as_uri()

    async def scenario(client: Client) -> None:
        for step in (check_diagnostics, check_questions, check_edits, check_typing):
            await step(client, uri)

    talk(scenario)


def test_used_files_are_looked_at_again_when_saved(tmp_path: Path) -> None:
    part, main = tmp_path / "part.nl", tmp_path / "main.nl"
    part.write_text("block part(x) { return sigmod(x) }\n")

    async def scenario(client: Client) -> None:
        text = 'use "part.nl"\nblock f(x) { return part(x) }\n'
        found = await client.open(main.as_uri(), text)
        assert [d.code for d in found.diagnostics] == ["NL0302"]
        await client.open(part.as_uri(), part.read_text())
        part.write_text("block part(x) { return 2 * sigmoid(x) }\n")
        identifier = lsp.TextDocumentIdentifier(part.as_uri())
        client.lsp.text_document_did_save(lsp.DidSaveTextDocumentParams(identifier))
        found = await client.next()
        assert found.uri == main.as_uri() and not found.diagnostics
        where = await client.lsp.text_document_definition_async(
            lsp.DefinitionParams(**client.at(main.as_uri(), 1, 21))
        )
        assert where.uri == part.as_uri()

    talk(scenario)
