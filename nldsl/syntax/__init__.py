"""Text or YAML becomes a tree: `parse`."""

from nldsl.syntax.parse import parse

__all__ = ["parse"]
