"""Emission: typed nodes of Python code (`nodes`), and their printer."""
