"""1 where the first value is less than the second, else 0."""

from __future__ import annotations

from nldsl.library._comparison import comparison

PRIMITIVE = comparison("lt", "less than", "<", numpy="less")
