"""What emitted code imports: operations, kernels, chunk grid, state, and the public wrappers."""

from nldsl.runtime.model import Layer, Model
from nldsl.runtime.state import State

__all__ = ["Layer", "Model", "State"]
