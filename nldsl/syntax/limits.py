"""How much text is read at most: nothing a user writes may cost seconds or gigabytes."""

from __future__ import annotations

MAX_BYTES = 1 << 20
"""Size of a file, in bytes (1 MiB)."""

MAX_TOKENS = 20_000
"""Words and signs of a file; the standard library's largest file has a few thousand."""

MAX_STATEMENT_TOKENS = 2_000
"""Words and signs of one statement."""

MAX_NESTING = 64
"""Brackets and braces inside one another."""

MAX_EXPRESSION_DEPTH = 100
"""Operators inside one another, `a + b + c` counting as two."""

MAX_DIGITS = 40
"""Characters of a number."""

MAX_NAME = 200
"""Characters of a name."""

MAX_ELSE_CHAIN = 32
"""`else if` behind one `if`: each stands inside the one before."""

MAX_REPAIRS = 8
"""Wrong braces per file that are repaired while reading."""

MAX_FINDINGS = 100
"""Findings reported per file; what comes after is most likely the same mistake again."""

MAX_YAML_CHARACTERS = 1 << 18
"""Characters of a YAML file; its parser is some ten times slower than the one for text."""

MAX_YAML_NODES = 20_000
"""Keys and values of a YAML file."""
