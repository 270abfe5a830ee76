"""The interpreter: `Program` -> outputs and states, token by token, literally.  It is the semantics."""

from nldsl.reference.interpreter import Event, Interpreter
from nldsl.reference.parameters import parameters
from nldsl.reference.states import State, flatten_state

__all__ = ["Event", "Interpreter", "State", "flatten_state", "parameters"]
