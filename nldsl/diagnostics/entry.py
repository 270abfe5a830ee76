"""One entry of the catalogue of codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Entry:
    """What a code means.

    `failing` is a whole program whose only code is this one and `working` its repaired twin; both
    are empty for codes that need more than a text (a file that is missing, data, a device).
    """

    title: str
    explanation: str
    failing: str = ""
    working: str = ""
    form: Literal["text", "yaml"] = "text"
