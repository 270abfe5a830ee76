"""A lowering's no, with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """Why a lowering does not take a unit; printed by `explain`."""

    reason: str
