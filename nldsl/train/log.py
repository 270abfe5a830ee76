"""What a run says: one JSON object per line in `log.jsonl`, and a progress bar on stderr."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nldsl.train.board import Board
from nldsl.train.checkpoint import write_text
from nldsl.train.errors import fault

LOG = "log.jsonl"


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The records of a run; a last line that was cut off by a crash is left out."""
    path = folder / LOG
    records: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


class RunLog:
    """Appends records to `log.jsonl` and shows the newest ones; a context manager.

    When a run is resumed at a step, records of later steps, which will be made again, are dropped.  With
    `board` the numbers go to TensorBoard too (NL0941 without its package).
    """

    def __init__(self, folder: Path, *, resumed_at: int, show: bool, board: bool = False) -> None:
        self.board = Board(folder, resumed_at=resumed_at) if board else None
        kept = [record for record in read_log(folder) if record["step"] <= resumed_at]
        self.path = folder / LOG
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self.file: TextIO = self.path.open("a", encoding="utf-8")
        self.show = show
        console = Console(file=sys.stderr, highlight=False)
        self.live = show and console.is_terminal
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self.live,
        )
        self.task: TaskID = self.progress.add_task("train", total=1.0, said="")
        self.console = console

    def __enter__(self) -> RunLog:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        self.file.close()
        if self.board is not None:
            self.board.close()

    def step(self, record: dict[str, Any], progress: float) -> None:
        """Write the record of one training step and move the bar."""
        self.write(record)
        if self.live:
            said = (
                f"step {record['step']}  loss {record.get('loss', math.nan):.3f}  "
                f"{self.bits(record)[0]:.3f} bits/{self.bits(record)[1]}  "
                f"{record['tokens_per_second']:,.0f} tokens/s"
            )
            self.progress.update(self.task, completed=progress, said=said)

    def heldout(self, record: dict[str, Any]) -> None:
        """Write and show a held-out evaluation."""
        self.write(record)
        if self.show:
            bits, unit = self.bits(record, "heldout_")
            right = f", {record['heldout_accuracy']:.1%} right" if "heldout_accuracy" in record else ""
            self.console.print(
                f"step {record['step']}: {bits:.3f} bits per {unit} held out{right} "
                f"({record['tokens']:,} tokens, {record['seconds']:.0f} s)"
            )

    def say(self, text: str) -> None:
        """Show a line that is no record, if there is one."""
        if self.show and text:
            self.console.print(text, soft_wrap=True)

    @staticmethod
    def bits(record: dict[str, Any], which: str = "") -> tuple[float, str]:
        """The bits of a record, and what they are per."""
        unit = "label" if f"{which}bits_per_label" in record else "byte"
        return record.get(f"{which}bits_per_{unit}", math.nan), unit

    def write(self, record: dict[str, Any]) -> None:
        """Write one record; it is in the file when the call returns."""
        if self.board is not None:
            self.board.add(record)
        try:
            self.file.write(json.dumps(record, allow_nan=False) + "\n")
            self.file.flush()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise fault(
                "NL0973",
                f"the log `{self.path}` cannot be written: {reason}",
                help="make room, then go on from the newest checkpoint with `--resume`",
            ) from error


class Silent:
    """The log of a process that is not the first: it says and writes nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def step(self, record: dict[str, Any], progress: float) -> None:
        """Nothing."""

    def heldout(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def write(self, record: dict[str, Any]) -> None:
        """Nothing."""
