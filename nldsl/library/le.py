"""1 where the first value is at most the second, else 0."""

from __future__ import annotations

from nldsl.library._comparison import comparison

PRIMITIVE = comparison("le", "at most", "<=", numpy="less_equal")
