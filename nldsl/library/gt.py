"""1 where the first value is greater than the second, else 0."""

from __future__ import annotations

from nldsl.library._comparison import comparison

PRIMITIVE = comparison("gt", "greater than", ">", numpy="greater")
