"""The numbers of a run as TensorBoard shows them: an event file in the run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nldsl.train.reading import required

FOLDER = "tensorboard"


class Board:
    """Writes the numbers in records of the log as scalars.  Raises NL0941 without the package `tensorboard`.

    Nested records become tags: `{"levels": {"context": {"used": 0.3}}}` is `levels/context/used`.
    """

    def __init__(self, folder: Path, *, resumed_at: int = 0) -> None:
        required("tensorboard", "tensorboard", "`--tensorboard` writes its files")
        module = required("torch.utils.tensorboard", "tensorboard", "`--tensorboard` writes its files")
        # Events of later steps, which will be made again, are hidden by the new ones.
        purge = resumed_at + 1 if resumed_at else None
        self.writer: Any = module.SummaryWriter(str(folder / FOLDER), purge_step=purge)

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one record; its `step` is the abscissa."""
        for tag, value in scalars(record):
            self.writer.add_scalar(tag, value, record["step"])

    def close(self) -> None:
        """Put what is left on the disk."""
        self.writer.close()


def scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers by tag, without the step.

    Example:
        >>> list(scalars({"step": 3, "loss": 2.5, "levels": {"context": {"used": 0.5}}, "skipped": "spike"}))
        [('loss', 2.5), ('levels/context/used', 0.5)]
    """
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and (prefix or name != "step"):
            yield f"{prefix}{name}", float(value)
