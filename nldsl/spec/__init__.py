"""Elaboration: a tree becomes a program in which every name, number and shape is known."""

from nldsl.spec.elaborate import check, elaborate
from nldsl.spec.loader import Bundle, load

__all__ = ["Bundle", "check", "elaborate", "load"]
