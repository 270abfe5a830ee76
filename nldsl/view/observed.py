"""A predicted timeline beside what a run was seen to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from nldsl.view.timeline import Timeline, Times, Track

_LANES = ("writes", "commits", "bases", "resets")


class Seen(Protocol):
    """When one copy of a memory changed."""

    @property
    def problem(self) -> str:
        """The id of its problem in the level graph."""

    @property
    def path(self) -> str:
        """Its absolute path."""

    @property
    def writes(self) -> Times:
        """Its running state changed."""

    @property
    def commits(self) -> Times:
        """What reads see changed."""

    @property
    def bases(self) -> Times:
        """Where gradients are taken moved."""

    @property
    def resets(self) -> Times:
        """It started anew."""

    @property
    def still(self) -> Times:
        """Its step is zero by definition: a write leaves no trace."""

    @property
    def unmoved(self) -> Times:
        """What reads see is the same by definition: a commit leaves no trace."""


def compare_observed(line: Timeline, seen: Sequence[Seen]) -> list[str]:
    """One sentence per memory and event that came at other tokens than predicted."""
    tracks = {id: track for track in line.tracks for id in track.problems}
    found = []
    for one in seen:
        track = tracks[one.problem]
        for lane in _LANES:
            predicted, happened = list(getattr(track, lane)), list(getattr(one, lane))
            # A state that starts anew may look as it did: only other tokens than these must agree.
            blind = set(track.resets) | set(one.resets) if lane in ("writes", "commits", "bases") else set()
            mute = {"writes": set(one.still), "commits": set(one.unmoved)}.get(lane, set())
            missing = [t for t in predicted if t not in happened and t not in blind | mute]
            surplus = [t for t in happened if t not in predicted and t not in blind]
            if missing or surplus:
                told = [*_told(missing, "missing"), *_told(surplus, "unforeseen")]
                found.append(f"{one.path}: {lane} {' and '.join(told)}")
    return found


def _told(tokens: list[int], word: str) -> list[str]:
    if not tokens:
        return []
    some = ", ".join(map(str, tokens[:6]))
    return [f"{word} at tokens {some}{' ...' if len(tokens) > 6 else ''}"]


def with_observed(line: Timeline, seen: Sequence[Seen]) -> Timeline:
    """The timeline with observed times where something was observed."""
    known = {one.problem: one for one in seen}

    def shown(track: Track) -> Track:
        one = next((known[id] for id in track.problems if id in known), None)
        if one is None:
            return track
        return replace(track, **{lane: getattr(one, lane) for lane in _LANES})

    return replace(line, name=f"{line.name}, observed", tracks=tuple(shown(t) for t in line.tracks))
