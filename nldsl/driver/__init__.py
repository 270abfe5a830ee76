"""The driver: the one place that knows the order of the stages."""

from nldsl.driver.compile import compile, compile_source, open_program, plan_of

__all__ = ["compile", "compile_source", "open_program", "plan_of"]
