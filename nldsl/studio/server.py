"""The server of the studio: 127.0.0.1 only, a secret in the address, nothing from anywhere else.

Every request must carry the token, name this host, and be small.  The one file it writes is the one it was
started with.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from nldsl.diagnostics import DiagnosticBag, SpecError
from nldsl.spec import load
from nldsl.studio.file import EditedFile
from nldsl.studio.page import studio_page
from nldsl.studio.worker import Worker
from nldsl.syntax import read_source
from nldsl.syntax.limits import MAX_BYTES
from nldsl.view.page import POLICY

MOST = 4 * MAX_BYTES + 65_536
"""Bytes of a request: a text of the largest size, every character escaped."""

HOST = "127.0.0.1"
_QUICK, _PATIENT = 15.0, 90.0
_EDITING = frozenset({"check", "complete", "tell", "format"})
_DRAWING = frozenset({"picture", "source"})


class Studio(ThreadingHTTPServer):
    """One file (or none), one page, two processes: one answers keystrokes, the other draws."""

    daemon_threads = True

    def __init__(self, name: str, text: str, path: Path | None = None, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self.name = name
        self.file = EditedFile(path, text)
        self.nonce = secrets.token_urlsafe(16)
        self.editor = Worker(name, path, _QUICK)
        self.drawer = Worker(name, path, _PATIENT)
        self.pages: dict[str, str] = {}
        # Last: a port that is taken closes what is above.
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.server_port}/?token={self.token}"

    def answer(self, ask: dict[str, Any]) -> dict[str, Any]:
        """What the page asked for."""
        what, text = ask.get("what"), ask.get("text", "")
        if not isinstance(text, str):
            return {"failed": "the text is not a text"}
        # Half of a pair of surrogates is no character: nothing could be written with it.
        ask["text"] = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if what == "save":
            return self.file.save(ask["text"], str(ask.get("seen", "")), ask.get("anyway") is True)
        if what in _EDITING:
            return self.editor.do(what, {"at": 0, **ask})
        if what in _DRAWING:
            found = self.drawer.do(what, ask)
            if "page" in found:
                found = {**found, "page": self.keep(found["page"])}
            return found
        return {"failed": f"unknown request `{str(what)[:40]}`"}

    def keep(self, page: str) -> str:
        """Keep a drawn page for the frame that will ask for it; only the latest ones."""
        number = secrets.token_urlsafe(8)
        self.pages[number] = page
        for old in list(self.pages)[:-4]:
            self.pages.pop(old, None)
        return number

    def warm(self) -> None:
        """Start both processes; else each starts with the first question to it."""
        for worker in (self.editor, self.drawer):
            worker.start()

    def server_close(self) -> None:
        """Close the port and end both processes."""
        super().server_close()
        for worker in (self.editor, self.drawer):
            worker.close()


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Studio
    timeout = 30
    server_version = "nldsl"
    sys_version = ""

    def do_GET(self) -> None:
        """The page, or a graph for its frame."""
        address = urlsplit(self.path)
        if not self._welcome(parse_qs(address.query).get("token", [""])[0]):
            return
        studio = self.server
        if address.path == "/":
            studio.file.look()
            page = studio_page(studio.name, studio.file, studio.token, studio.nonce)
            self._send(200, page, "text/html", _policy(studio.nonce))
        elif address.path.startswith("/graph/") and address.path[7:] in studio.pages:
            self._send(200, studio.pages[address.path[7:]], "text/html", f"{POLICY}; frame-ancestors 'self'")
        else:
            self._send(404, "not here", "text/plain")

    def do_POST(self) -> None:
        """A request of the page, as JSON."""
        if not self._welcome(self.headers.get("X-Token", "")):
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self._send(411, "how long?", "text/plain")
            return
        if int(length) > MOST:
            self._send(413, "too long", "text/plain")
            return
        try:
            ask = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            ask = None
        if not isinstance(ask, dict):
            self._send(400, "not a JSON object", "text/plain")
            return
        self._send(200, json.dumps(self.server.answer(ask)), "application/json")

    def _welcome(self, token: str) -> bool:
        """Whether the request comes from our page: token, host and origin must be ours."""
        here = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        local = self.headers.get("Host", "") in here
        local = local and (origin is None or urlsplit(origin).netloc in here)
        if local and secrets.compare_digest(token.encode(), self.server.token.encode()):
            return True
        self.close_connection = True
        self._send(403, "open the address that `nldsl studio` printed", "text/plain")
        return False

    def _send(self, status: int, body: str, kind: str, policy: str = "default-src 'none'") -> None:
        content = body.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: the terminal is for people."""


def _policy(nonce: str) -> str:
    own = f"'nonce-{nonce}'"
    return f"default-src 'none'; script-src {own}; style-src {own}; connect-src 'self'; frame-src 'self'"


def open_studio(spec: str | None, fresh: str, port: int = 0) -> Studio:
    """A studio for a file (which may be new), a copy of a library spec, or a fresh text.

    Raises:
        SpecError: there is no such file or spec, or it cannot be read.
        OSError: the port is taken.
    """
    if spec is None:
        return Studio("untitled.nl", fresh, None, port)
    path = Path(spec)
    is_file = path.suffix in (".nl", ".yaml", ".yml")
    if is_file and not path.exists() and path.parent.is_dir():
        return Studio(path.name, fresh, path, port)
    bag = DiagnosticBag()
    if is_file or path.is_file():
        file = read_source(spec, bag)
        if file is None:
            raise SpecError(bag.items)
        return Studio(path.name, file.text, path, port)
    unit = load(spec, bag).main
    bag.raise_if_errors()
    # A spec of the library is not for writing: what one makes of it is downloaded.
    return Studio(Path(unit.file.name).name, unit.file.text, None, port)
