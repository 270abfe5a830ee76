"""Jobs in a process of their own: one that hangs or dies is replaced, and the page goes on."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

from nldsl.studio.jobs import Desk, run


class Worker:
    """One process that does one job after the other."""

    def __init__(self, name: str, path: Path | None, seconds: float) -> None:
        self.name, self.path, self.seconds = name, path, seconds
        self._lock = Lock()
        self._process: Any = None
        self._wire: Connection | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to load what the jobs need, so that the first answer comes sooner."""
        with self._lock, contextlib.suppress(OSError):
            self._open()

    def do(self, what: str, ask: dict[str, Any]) -> dict[str, Any]:
        """The answer of a job, or `{"failed": why}`; never raises, never takes much longer than `seconds`."""
        with self._lock:
            if self._closed:
                return {"failed": "the studio is closing"}
            try:
                wire = self._open()
                wire.send((what, ask))
                if not wire.poll(self.seconds):
                    self._end()
                    return {"failed": f"this took longer than {self.seconds:.0f} seconds and was stopped"}
                answer: dict[str, Any] = wire.recv()
                return answer
            except (EOFError, OSError):
                self._end()
                return {
                    "failed": "the process that reads the text has died; the next change starts a new one"
                }

    def _open(self) -> Connection:
        if self._wire is None or not self._process.is_alive():
            self._end()
            # Not a fork: the server has threads.
            context = multiprocessing.get_context("spawn")
            self._wire, far = context.Pipe()
            self._process = context.Process(target=serve, args=(far, self.name, self.path), daemon=True)
            self._process.start()
            far.close()
        return self._wire

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join(5)
        if self._wire is not None:
            self._wire.close()
        self._process = self._wire = None

    def close(self) -> None:
        """End the process, whatever it does."""
        self._closed = True
        process = self._process
        if process is not None:
            with contextlib.suppress(AttributeError, ValueError):
                process.kill()
        with self._lock:
            self._end()


def serve(wire: Connection, name: str, path: Path | None) -> None:
    """The loop of the process: until the other end closes."""
    # Ctrl-C is for the server, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    desk = Desk(name, path)
    while True:
        try:
            what, ask = wire.recv()
        except (EOFError, OSError):
            return
        try:
            answer = run(desk, what, ask)
        except Exception as wrong:
            desk.document = None
            answer = {"failed": f"internal error: {type(wrong).__name__}: {wrong}"}
        wire.send(answer)
