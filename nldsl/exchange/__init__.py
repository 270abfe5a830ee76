"""Models and weights of other libraries, in both directions."""

from nldsl.exchange.arrive import import_hub
from nldsl.exchange.hub import export_hub
from nldsl.exchange.programs import export_onnx, export_torch

__all__ = ["export_hub", "export_onnx", "export_torch", "import_hub"]
