"""Ctrl-C and SIGTERM let the step in progress end, so that a run can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """Within this context the first SIGINT or SIGTERM sets `asked`; a second one interrupts at once.

    With `patient` it does not: `torchrun` passes on what the terminal has sent already, and kills what
    does not end by itself.  Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.asked = False
        self.patient = patient
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not self.patient:
            raise KeyboardInterrupt
        self.asked = True
