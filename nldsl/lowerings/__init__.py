"""Lowerings: from a plan to the nodes of an emitted module."""
