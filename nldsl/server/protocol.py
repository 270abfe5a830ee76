"""The language server: what the analysis knows in the words of the protocol.

Texts are synchronised whole, positions count UTF-16 code units.  A fault of nldsl itself never reaches the
client as a traceback: the request gets no answer and the log says why.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer
from pygls.uris import from_fs_path, to_fs_path

from nldsl.diagnostics import SpecError
from nldsl.server import messages
from nldsl.server.completion import complete, explain_proposal
from nldsl.server.document import Document, Place
from nldsl.server.fixes import fixes
from nldsl.server.help import signature_help
from nldsl.server.lines import Lines
from nldsl.server.navigation import RenameError, definition, foldings, outline, references, renamable, rename
from nldsl.server.tokens import MODIFIERS, TYPES, semantic_tokens
from nldsl.source import SourceFile
from nldsl.syntax import format_text

_LOG = logging.getLogger("nldsl.server")
_LONGEST_WAIT = 0.3
_SHORTEST_WAIT = 0.02
F = TypeVar("F", bound=Callable[..., Any])


class Server(LanguageServer):
    """The server with the documents that are open."""

    def __init__(self, version: str) -> None:
        super().__init__("nldsl", version, text_document_sync_kind=lsp.TextDocumentSyncKind.Full)
        self.documents: dict[str, Document] = {}
        self.pending: dict[str, asyncio.TimerHandle] = {}
        self.took = 0.0
        """Seconds the last check took: the slower, the longer the server waits for the next key."""

    def document(self, uri: str) -> Document:
        """The open document at its present version; a document that is not open is read from the disk."""
        if uri not in self.documents:
            text = self.workspace.get_text_document(uri)
            path = to_fs_path(uri)
            self.documents[uri] = Document(Path(path or uri).name, text.source, Path(path) if path else None)
        return self.documents[uri]

    def changed(self, uri: str) -> None:
        """A new text: check it when the keys rest for a moment."""
        self.document(uri).update(self.workspace.get_text_document(uri).source)
        if uri in self.pending:
            self.pending.pop(uri).cancel()
        wait = min(_LONGEST_WAIT, max(_SHORTEST_WAIT, 2 * self.took))
        loop = asyncio.get_running_loop()
        self.pending[uri] = loop.call_later(wait, self.publish, uri)

    def publish(self, uri: str) -> None:
        """Send what there is to say about a document."""
        self.pending.pop(uri, None)
        document = self.documents.get(uri)
        if document is None:
            return
        started = time.perf_counter()
        try:
            found = [messages.diagnostic(document, remark, uri) for remark in document.remarks]
        except Exception:
            _LOG.exception("checking %s failed", uri)
            return
        self.took = time.perf_counter() - started
        version = self.workspace.get_text_document(uri).version
        self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, found, version))

    def close(self, uri: str) -> None:
        """Forget a document and take back what was said about it."""
        if uri in self.pending:
            self.pending.pop(uri).cancel()
        self.documents.pop(uri, None)
        self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, []))

    def saved(self, uri: str) -> None:
        """A file on the disk changed: look again at what uses it."""
        for other, document in self.documents.items():
            if other != uri and document.checker.unit is not None and document.checker.unit.uses:
                document.refresh()
                self.publish(other)

    def location(self, uri: str, document: Document, place: Place) -> lsp.Location:
        """A place of a document, or of a file."""
        if place.path is None:
            return lsp.Location(uri, messages.span(document.lines, place.start, place.end))
        lines = Lines(place.path.read_text(encoding="utf-8-sig"))
        return lsp.Location(from_fs_path(str(place.path)) or "", messages.span(lines, place.start, place.end))


def quiet(feature: F) -> F:
    """A feature that answers nothing, and logs why, where it would raise."""

    @wraps(feature)
    def guarded(server: Server, params: Any) -> Any:
        try:
            return feature(server, params)
        except JsonRpcException:
            raise
        except Exception:
            _LOG.exception("%s failed", feature.__name__)
            return None

    return guarded  # type: ignore[return-value]


def _place(server: Server, params: Any) -> tuple[Document, int]:
    """The document and the offset that a request is about."""
    document = server.document(params.text_document.uri)
    return document, document.lines.offset(params.position.line, params.position.character)


@quiet
def on_open(server: Server, params: lsp.DidOpenTextDocumentParams) -> None:
    uri = params.text_document.uri
    server.document(uri).update(params.text_document.text)
    server.publish(uri)


@quiet
def on_change(server: Server, params: lsp.DidChangeTextDocumentParams) -> None:
    server.changed(params.text_document.uri)


@quiet
def on_close(server: Server, params: lsp.DidCloseTextDocumentParams) -> None:
    server.close(params.text_document.uri)


@quiet
def on_save(server: Server, params: lsp.DidSaveTextDocumentParams) -> None:
    server.saved(params.text_document.uri)


@quiet
def on_hover(server: Server, params: lsp.HoverParams) -> lsp.Hover | None:
    # Equations and graphs cost a quarter of the time to the first diagnostics, which do not need them.
    from nldsl.server.hover import hover

    document, offset = _place(server, params)
    found = hover(document, offset)
    if found is None:
        return None
    text, start, end = found
    content = lsp.MarkupContent(lsp.MarkupKind.Markdown, text)
    return lsp.Hover(content, messages.span(document.lines, start, end))


@quiet
def on_completion(server: Server, params: lsp.CompletionParams) -> lsp.CompletionList:
    document, offset = _place(server, params)
    proposals, start = complete(document, offset)
    where = messages.span(document.lines, start, offset)
    uri = params.text_document.uri
    return lsp.CompletionList(False, [messages.completion(p, where, uri) for p in proposals])


@quiet
def on_resolve(server: Server, item: lsp.CompletionItem) -> lsp.CompletionItem:
    data = item.data
    if not isinstance(data, dict) or data.get("uri") not in server.documents:
        return item
    kind, name = str(data.get("kind")), str(data.get("name"))
    text = name if kind == "text" else explain_proposal(server.documents[data["uri"]], (kind, name))
    if text:
        item.documentation = lsp.MarkupContent(lsp.MarkupKind.Markdown, text)
    return item


@quiet
def on_signature(server: Server, params: lsp.SignatureHelpParams) -> lsp.SignatureHelp | None:
    found = signature_help(*_place(server, params))
    if found is None:
        return None
    arguments = [lsp.ParameterInformation(argument) for argument in found.arguments]
    signature = lsp.SignatureInformation(found.label, found.text or None, arguments, found.active)
    return lsp.SignatureHelp([signature], 0, found.active)


@quiet
def on_definition(server: Server, params: lsp.DefinitionParams) -> lsp.Location | None:
    document, offset = _place(server, params)
    place = definition(document, offset)
    return server.location(params.text_document.uri, document, place) if place is not None else None


@quiet
def on_references(server: Server, params: lsp.ReferenceParams) -> list[lsp.Location]:
    document, offset = _place(server, params)
    found = references(document, offset, params.context.include_declaration)
    uri = params.text_document.uri
    return [lsp.Location(uri, messages.span(document.lines, o.start, o.end)) for o in found]


@quiet
def on_highlight(server: Server, params: lsp.DocumentHighlightParams) -> list[lsp.DocumentHighlight]:
    document, offset = _place(server, params)
    write, read = lsp.DocumentHighlightKind.Write, lsp.DocumentHighlightKind.Read
    return [
        lsp.DocumentHighlight(messages.span(document.lines, o.start, o.end), write if o.binds else read)
        for o in references(document, offset)
    ]


@quiet
def on_prepare_rename(server: Server, params: lsp.PrepareRenameParams) -> lsp.Range | None:
    document, offset = _place(server, params)
    try:
        found = renamable(document, offset)
    except RenameError:
        return None
    return messages.span(document.lines, found.start, found.end)


@quiet
def on_rename(server: Server, params: lsp.RenameParams) -> lsp.WorkspaceEdit | None:
    document, offset = _place(server, params)
    try:
        edits = rename(document, offset, params.new_name)
    except RenameError as refusal:
        raise JsonRpcException(str(refusal), -32803) from refusal
    changes = [lsp.TextEdit(messages.span(document.lines, a, b), text) for a, b, text in edits]
    return lsp.WorkspaceEdit({params.text_document.uri: changes})


@quiet
def on_symbols(server: Server, params: lsp.DocumentSymbolParams) -> list[lsp.DocumentSymbol]:
    document = server.document(params.text_document.uri)
    return [messages.symbol(document.lines, entry) for entry in outline(document)]


@quiet
def on_folding(server: Server, params: lsp.FoldingRangeParams) -> list[lsp.FoldingRange]:
    return [lsp.FoldingRange(a, b) for a, b in foldings(server.document(params.text_document.uri))]


@quiet
def on_tokens(server: Server, params: lsp.SemanticTokensParams) -> lsp.SemanticTokens:
    return lsp.SemanticTokens(semantic_tokens(server.document(params.text_document.uri)))


@quiet
def on_format(server: Server, params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit] | None:
    document = server.document(params.text_document.uri)
    try:
        text = format_text(SourceFile(document.name, document.text))
    except SpecError:
        return None
    if text == document.text:
        return []
    return [lsp.TextEdit(messages.span(document.lines, 0, len(document.text)), text)]


@quiet
def on_action(server: Server, params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
    uri = params.text_document.uri
    document = server.document(uri)
    ends = [document.lines.offset(p.line, p.character) for p in (params.range.start, params.range.end)]
    return [messages.action(document, fix, uri) for fix in fixes(document, *ends)]


def make_server(version: str) -> Server:
    """A server with every feature; `start_io()` runs it."""
    server = Server(version)
    legend = lsp.SemanticTokensLegend(list(TYPES), list(MODIFIERS))
    for name, feature, options in (
        (lsp.TEXT_DOCUMENT_DID_OPEN, on_open, None),
        (lsp.TEXT_DOCUMENT_DID_CHANGE, on_change, None),
        (lsp.TEXT_DOCUMENT_DID_CLOSE, on_close, None),
        (lsp.TEXT_DOCUMENT_DID_SAVE, on_save, None),
        (lsp.TEXT_DOCUMENT_HOVER, on_hover, None),
        (
            lsp.TEXT_DOCUMENT_COMPLETION,
            on_completion,
            lsp.CompletionOptions(["[", "(", " "], resolve_provider=True),
        ),
        (lsp.COMPLETION_ITEM_RESOLVE, on_resolve, None),
        (lsp.TEXT_DOCUMENT_SIGNATURE_HELP, on_signature, lsp.SignatureHelpOptions(["(", ","])),
        (lsp.TEXT_DOCUMENT_DEFINITION, on_definition, None),
        (lsp.TEXT_DOCUMENT_REFERENCES, on_references, None),
        (lsp.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT, on_highlight, None),
        (lsp.TEXT_DOCUMENT_PREPARE_RENAME, on_prepare_rename, None),
        (lsp.TEXT_DOCUMENT_RENAME, on_rename, lsp.RenameOptions(prepare_provider=True)),
        (lsp.TEXT_DOCUMENT_DOCUMENT_SYMBOL, on_symbols, None),
        (lsp.TEXT_DOCUMENT_FOLDING_RANGE, on_folding, None),
        (lsp.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, on_tokens, legend),
        (lsp.TEXT_DOCUMENT_FORMATTING, on_format, None),
        (lsp.TEXT_DOCUMENT_CODE_ACTION, on_action, lsp.CodeActionOptions([lsp.CodeActionKind.QuickFix])),
    ):
        server.feature(name, options)(feature)
    return server
