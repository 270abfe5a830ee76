"""Text or YAML becomes a tree, and back: `parse`, `format_text`, `to_text`, `to_yaml`."""

from nldsl.syntax.formatting import format_text
from nldsl.syntax.parse import is_yaml, parse
from nldsl.syntax.printer import format_tree, to_text
from nldsl.syntax.reading import decode, read_source
from nldsl.syntax.yaml_writer import to_yaml

__all__ = ["decode", "format_text", "format_tree", "is_yaml", "parse", "read_source", "to_text", "to_yaml"]
