"""Findings, proposals and outlines as the protocol writes them."""

from __future__ import annotations

from lsprotocol import types as lsp

from nldsl.server.completion import Proposal
from nldsl.server.document import Document, Remark
from nldsl.server.fixes import Fix
from nldsl.server.lines import Lines
from nldsl.server.navigation import Entry

_SEVERITY = {
    "error": lsp.DiagnosticSeverity.Error,
    "warning": lsp.DiagnosticSeverity.Warning,
    "note": lsp.DiagnosticSeverity.Information,
}
_UNUSED = frozenset({"NL0323", "NL0325", "NL0328"})
"""Codes of text without effect: editors show it faded."""
_PROPOSALS = {
    "function": lsp.CompletionItemKind.Function,
    "definition": lsp.CompletionItemKind.Class,
    "variable": lsp.CompletionItemKind.Variable,
    "memory": lsp.CompletionItemKind.Field,
    "option": lsp.CompletionItemKind.Property,
    "keyword": lsp.CompletionItemKind.Keyword,
    "file": lsp.CompletionItemKind.File,
}
_ENTRIES = {
    "block": lsp.SymbolKind.Class,
    "model": lsp.SymbolKind.Class,
    "variant": lsp.SymbolKind.Class,
    "map": lsp.SymbolKind.Function,
    "objective": lsp.SymbolKind.Function,
    "rule": lsp.SymbolKind.Function,
    "train": lsp.SymbolKind.Event,
    "level": lsp.SymbolKind.Namespace,
    "memory": lsp.SymbolKind.Field,
}


def span(lines: Lines, start: int, end: int) -> lsp.Range:
    """A range of characters in lines and UTF-16 columns."""
    return lsp.Range(lsp.Position(*lines.position(start)), lsp.Position(*lines.position(end)))


def diagnostic(document: Document, remark: Remark, uri: str) -> lsp.Diagnostic:
    """A finding: its message, label, notes and help in one text, its other places as related ones."""
    finding = remark.finding
    text = finding.message + (f": {finding.label}" if finding.label else "")
    more = [f"note: {note}" for note in finding.notes] + ([f"help: {finding.help}"] if finding.help else [])
    related = [
        lsp.DiagnosticRelatedInformation(lsp.Location(uri, span(document.lines, a, b)), words)
        for a, b, words in remark.labels
    ]
    return lsp.Diagnostic(
        range=span(document.lines, remark.start, remark.end),
        message="\n".join([text, *more]),
        severity=_SEVERITY[finding.severity],
        code=finding.code,
        source="nldsl",
        tags=[lsp.DiagnosticTag.Unnecessary] if finding.code in _UNUSED else None,
        related_information=related or None,
    )


def completion(proposal: Proposal, where: lsp.Range, uri: str) -> lsp.CompletionItem:
    """A proposal that replaces `where`; its documentation is asked for later."""
    kind, name = proposal.about
    form = lsp.InsertTextFormat.Snippet if proposal.snippet else lsp.InsertTextFormat.PlainText
    return lsp.CompletionItem(
        label=proposal.label,
        kind=_PROPOSALS[proposal.kind],
        detail=proposal.detail or None,
        sort_text=f"{proposal.order}{proposal.label}",
        text_edit=lsp.TextEdit(where, proposal.text or proposal.label),
        insert_text_format=form,
        data={"uri": uri, "kind": kind, "name": name} if kind else None,
    )


def symbol(lines: Lines, entry: Entry) -> lsp.DocumentSymbol:
    """A line of the outline with what lies inside."""
    return lsp.DocumentSymbol(
        name=entry.name,
        kind=_ENTRIES[entry.kind],
        range=span(lines, entry.start, entry.end),
        selection_range=span(lines, entry.name_start, entry.name_end),
        detail=entry.detail or None,
        children=[symbol(lines, child) for child in entry.children],
    )


def action(document: Document, fix: Fix, uri: str) -> lsp.CodeAction:
    """A quick fix with the finding it answers."""
    edit = lsp.TextEdit(span(document.lines, fix.start, fix.end), fix.text)
    return lsp.CodeAction(
        title=fix.title,
        kind=lsp.CodeActionKind.QuickFix,
        diagnostics=[diagnostic(document, fix.remark, uri)],
        is_preferred=True,
        edit=lsp.WorkspaceEdit({uri: [edit]}),
    )
