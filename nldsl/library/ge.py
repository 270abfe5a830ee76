"""1 where the first value is at least the second, else 0."""

from __future__ import annotations

from nldsl.library._comparison import comparison

PRIMITIVE = comparison("ge", "at least", ">=", numpy="greater_equal")
