"""1 where the first value is different from the second, else 0."""

from __future__ import annotations

from nldsl.library._comparison import comparison

PRIMITIVE = comparison("ne", "different from", "!=", numpy="not_equal")
