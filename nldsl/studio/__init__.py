"""The studio: a local page with an editor on the left and what the text means on the right."""

from nldsl.studio.server import Studio, open_studio

__all__ = ["Studio", "open_studio"]
