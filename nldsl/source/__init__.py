"""Source text and places in it: the bottom of the house."""

from nldsl.source.text import SourceFile, Span

__all__ = ["SourceFile", "Span"]
