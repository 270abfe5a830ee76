"""Models and weights of other libraries, in both directions."""

from nldsl.exchange.arrive import import_hub
from nldsl.exchange.hub import export_hub

__all__ = ["export_hub", "import_hub"]
