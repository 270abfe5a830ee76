"""How wide text is, without a font: generous widths, so that what fits here fits on any screen."""

from __future__ import annotations

_NARROW, _WIDE, _WIDEST = (
    frozenset("iljI.,:;'|!()[]{}` tfr/\\-"),
    frozenset("mwMWGOQDHNUCRA%@"),
    frozenset("—∞→"),
)


def width(text: str, size: float, mono: bool = False) -> float:
    """The width of `text` in pixels at font size `size`, rather too much than too little.

    Example:
        >>> width("abc", 10, mono=True)
        18.6
    """
    if mono:
        return round(len(text) * size * 0.62, 2)
    return round(sum(_share(c) for c in text) * size, 2)


def fit(text: str, size: float, room: float, mono: bool = False) -> str:
    """`text`, cut with an ellipsis to fit into `room` pixels.

    Example:
        >>> fit("self_modifying_titans", 10, 50, mono=True)
        'self_mo…'
    """
    if width(text, size, mono) <= room:
        return text
    while text and width(text + "…", size, mono) > room:
        text = text[:-1]
    return text.rstrip(" ,;(") + "…"


def wrap(text: str, size: float, room: float, lines: int) -> list[str]:
    """`text` broken at spaces into at most `lines` lines of `room` pixels; the last one is cut to fit."""
    result: list[str] = []
    words = text.split()
    while words and len(result) < lines - 1:
        taken = 1
        while taken < len(words) and width(" ".join(words[: taken + 1]), size) <= room:
            taken += 1
        result.append(fit(" ".join(words[:taken]), size, room))
        words = words[taken:]
    if words:
        result.append(fit(" ".join(words), size, room))
    return result


def _share(character: str) -> float:
    if character in _NARROW:
        return 0.38
    if character in _WIDE:
        return 0.84
    return 1.0 if character in _WIDEST or ord(character) > 0x2E80 else 0.6
