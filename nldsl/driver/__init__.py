"""The driver: the one place that knows the order of the stages."""

from nldsl.driver.compile import compile, compile_source, plan_of
from nldsl.driver.rules import optimizer
from nldsl.graph import open_program

__all__ = ["compile", "compile_source", "open_program", "optimizer", "plan_of"]
