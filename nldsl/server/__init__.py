"""Editors: `Document` answers every question about a text; `protocol` is the language server.

`hover` is imported on its own: it knows equations and graphs, which a start need not load.  All but
`protocol` and `messages` need nothing that is not needed for checking: no torch, no pygls.
"""

from nldsl.server.completion import Proposal, complete
from nldsl.server.document import Document, Place, Remark
from nldsl.server.fixes import Fix, fixes
from nldsl.server.navigation import RenameError, definition, foldings, outline, references, rename

__all__ = [
    "Document",
    "Fix",
    "Place",
    "Proposal",
    "Remark",
    "RenameError",
    "complete",
    "definition",
    "fixes",
    "foldings",
    "outline",
    "references",
    "rename",
]
