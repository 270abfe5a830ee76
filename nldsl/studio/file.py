"""The one file a studio edits: read anew for every page, and written only over what that page has seen."""

from __future__ import annotations

import codecs
import contextlib
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from nldsl.diagnostics import DiagnosticBag
from nldsl.syntax.reading import decode


@dataclass
class EditedFile:
    """A file, which may not exist yet, or no file at all: then the text lives in the page only."""

    path: Path | None
    text: str
    """What was last read or written."""

    mark: str = field(default="", init=False)
    """A fingerprint of the file when `text` was read or written; empty where there was none."""

    def look(self) -> None:
        """Read what the file holds now; a file that is gone or cannot be read leaves the text as it is."""
        found = self._bytes()
        self.mark = _mark(found)
        if found is not None:
            file = decode(str(self.path), found, DiagnosticBag())
            self.text = self.text if file is None else file.text

    def save(self, text: str, seen: str, anyway: bool) -> dict[str, Any]:
        """Write `text`, unless the file is no longer what the page has `seen`: `{"saved"}`, or why not.

        Line ends and a byte order mark stay as the file has them.
        """
        if self.path is None:
            return {"failed": "there is no file: start with `nldsl studio FILE`, or download the text"}
        before = self._bytes()
        if not anyway and _mark(before) != seen:
            gone = before is None
            return {"conflict": f"{self.path.name} {'is gone from' if gone else 'has changed on'} the disk"}
        content = text.encode("utf-8")
        if before is not None and b"\r\n" in before:
            content = content.replace(b"\n", b"\r\n")
        if before is not None and before.startswith(codecs.BOM_UTF8):
            content = codecs.BOM_UTF8 + content
        # A rename, so that nobody sees half a file; a link is followed to what it means.
        target = self.path.resolve()
        fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            fresh.write_bytes(content)
            if target.exists():
                fresh.chmod(target.stat().st_mode & 0o777)
            fresh.replace(target)
        except OSError as wrong:
            with contextlib.suppress(OSError):
                fresh.unlink()
            return {"failed": f"{self.path.name} could not be written: {wrong.strerror}"}
        self.text, self.mark = text, _mark(content)
        return {"saved": self.path.name, "seen": self.mark}

    def _bytes(self) -> bytes | None:
        if self.path is None:
            return None
        try:
            return self.path.read_bytes()
        except OSError:
            return None


def _mark(content: bytes | None) -> str:
    return "" if content is None else sha256(content).hexdigest()
