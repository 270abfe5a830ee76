"""`format_text`: a file in canonical form, its comments kept and its meaning unchanged."""

from __future__ import annotations

from nldsl.diagnostics import DiagnosticBag
from nldsl.source import SourceFile
from nldsl.syntax.parse import is_yaml, parse, read_items
from nldsl.syntax.printer import format_tree
from nldsl.syntax.scan import scan


def format_text(file: SourceFile) -> str:
    """The text of `file` in canonical form.

    Text files are printed anew from their tree, comments and single empty lines kept.  Of YAML files
    only white space at line ends and at the end of the file changes: their layout belongs to the author.

    Raises:
        SpecError: the file does not parse; nothing is formatted then.

    Example:
        >>> format_text(SourceFile("a.nl", "block f(x){  # twice\\n return 2*x}"))
        'block f(x) {  # twice\\n  return 2 * x\\n}\\n'
    """
    bag = DiagnosticBag()
    tree = parse(file, bag)
    bag.raise_if_errors()
    text = _strip(file.text) if is_yaml(file.name) else format_tree(tree, file)
    if read_items(SourceFile(file.name, text), DiagnosticBag()) != tree.items:
        raise RuntimeError(f"formatting would change the meaning of {file.name}; please report this")
    if not is_yaml(file.name) and _comments(text) != _comments(file.text):
        raise RuntimeError(f"formatting would lose a comment of {file.name}; please report this")
    return text


def _strip(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(lines).rstrip() + "\n" if any(lines) else ""


def _comments(text: str) -> list[str]:
    return sorted(text[t.start : t.end].rstrip() for t in scan(text) if t.kind == "comment")
