"""What a built page would load from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

_LOADS = {
    "script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "video": "src",
    "audio": "src", "object": "data", "embed": "src", "image": "href", "use": "href", "form": "action",
}  # fmt: skip
_STAYS = frozenset({"canonical", "alternate", "license", "author"})
"""Relations of a link that name a page and load nothing."""
_CSS = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")


def external(text: str) -> list[str]:
    """Addresses that a page or a style sheet loads from another host.  A link one may follow is none of them.

    Example:
        >>> external('<a href="https://a.b/c">c</a><img src="d.png"><script src="//e.f/g.js"></script>')
        ['//e.f/g.js']
        >>> external("p { background: url(https://h.i/j.png) }")
        ['https://h.i/j.png']
    """
    reader = _Reader()
    reader.feed(text)
    return [*reader.found, *_CSS.findall(text)]


class _Reader(HTMLParser):
    """Gathers what the tags of a page load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One tag with its attributes."""
        self.found += self._of(tag, dict(attrs))

    def _of(self, tag: str, attributes: dict[str, str | None]) -> Iterator[str]:
        relation = set((attributes.get("rel") or "").split())
        if tag not in _LOADS or (tag == "link" and relation & _STAYS):
            return
        for name in (_LOADS[tag], "srcset"):
            address = attributes.get(name) or ""
            if re.match(r"(https?:)?//", address):
                yield address
