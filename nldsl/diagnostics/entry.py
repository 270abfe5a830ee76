"""One entry of the catalogue of codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Entry:
    """What a code means.

    `failing` is a whole program whose only code is this one and `working` its repaired twin.  Codes of the
    command line have a `failing_command` and a `working_command` instead, run in a folder with the file
    `good.nl`.  All are empty for codes that need more than that (data, a device, a full disk).
    """

    title: str
    explanation: str
    failing: str = ""
    working: str = ""
    form: Literal["text", "yaml"] = "text"
    failing_command: str = ""
    working_command: str = ""
