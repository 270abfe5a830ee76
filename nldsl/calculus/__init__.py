"""Closed forms of inner problems, worked out at compile time."""
