"""Notebooks: `%load_ext nldsl` gives the cell magic `%%nldsl` and the display of models and graphs."""

from nldsl.notebook.magic import load

__all__ = ["load"]
