"""How many tokens a chunk has where nobody chose: what the kernels take, and what explanations say."""

from __future__ import annotations

WIDTH = 64
"""Rows of a chunk, wherever nothing below says less."""


def pass_width(erases: bool, device: str) -> int:
    """Tokens of a chunk in one pass.

    The products of rows and columns of a chunk grow with its square: on a CPU 32 tokens with an erase take an
    eighth less than 64 (`benchmarks.choices`).  Elsewhere fewer and larger products win.

    >>> pass_width(True, "cpu"), pass_width(True, "cuda"), pass_width(False, "cpu")
    (32, 64, 64)
    """
    return WIDTH // 2 if erases and device == "cpu" else WIDTH


def general_width(rows: int, chunk: int = WIDTH) -> int:
    """Tokens of a chunk whose tokens have so many rows that erase: the triangular system keeps its size.

    >>> general_width(0), general_width(1), general_width(3), general_width(100)
    (64, 64, 21, 1)
    """
    return chunk // max(1, rows) or 1


def doubled_width(width: int) -> int:
    """The next power of two: gates per channel are joined by halves.

    >>> doubled_width(21), doubled_width(64)
    (32, 64)
    """
    return 1 << (width - 1).bit_length()
