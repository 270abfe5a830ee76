"""1 where the first value is equal to the second, else 0."""

from __future__ import annotations

from nldsl.library._comparison import comparison

PRIMITIVE = comparison("eq", "equal to", "==", numpy="equal")
