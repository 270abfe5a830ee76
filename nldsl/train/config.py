"""What a run was asked to do: written as `run.json`, read by `--resume` and by `generate`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nldsl.catalog.values import Static
from nldsl.train.checkpoint import write_text
from nldsl.train.errors import fault, option

RUN = "run.json"
MAY_CHANGE = frozenset({"steps", "minutes", "threads", "spike", "on_fault"})
"""What a resumed run may ask differently; all else would make it another run."""
OF_THE_SPEC = frozenset({"specification", "digests", "arguments"})
"""What a run that was imported, and has not begun, knows already."""
UNTYPED = frozenset({"source", "specification", "version", "imported"})
"""What is no option of a command."""
FLOAT32, BFLOAT16 = "float32", "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)
RECOMPUTE = ("none", "blocks")
NATIVE = "native"
COMPILED = ("no", "auto", "yes", NATIVE)
ON_FAULT = ("stop", "skip")
"""What happens at a step whose gradient is not finite or a spike."""


@dataclass(frozen=True)
class RunConfig:
    """The whole of a run's choices.

    `source` is the spec as it was named, `specification` the file within the run folder that holds
    its text (empty for a spec of the library), `digests` the sha256 of every text that took part.
    Either `steps` or `minutes` (of training, evaluation and saving not counted) ends the run, whose
    steps take `batch` windows of `length` predictions each; `arguments` bind parameters of the spec.
    With `stream` the rows of a batch read on from step to step and hand their state on.
    A step sums the gradients of `accumulate` batches.  A gradient norm above `spike` times the median of
    the last ones is a fault (0: never); at a fault the run stops or skips the step, as `on_fault` says.
    `precision` (`float32`, `bfloat16`) is that of products with weights and of attention, all else is
    float32; `recompute` (`none`, `blocks`) is what the backward pass computes again instead of keeping
    it; `compiled` (`no`, `auto`, `yes`) is what torch compiles: by `auto` where the plan says that it pays;
    by `native` chunks of memories are C.
    """

    source: str
    specification: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Static] = field(default_factory=dict)
    data: str = "python-stdlib"
    batch: int = 16
    length: int = 256
    seed: int = 0
    steps: int = 0
    minutes: float = 0.0
    threads: int = 0
    accumulate: int = 1
    spike: float = 0.0
    on_fault: str = "stop"
    stream: bool = False
    precision: str = FLOAT32
    recompute: str = "none"
    compiled: str = "no"
    version: str = ""
    imported: str = ""
    """Where the weights come from, until the run takes its first step; then it is asked what to do."""

    def __post_init__(self) -> None:
        """Raise NL0981 for a number out of range."""
        if (self.steps > 0) == (self.minutes > 0) and not self.imported:
            raise fault(
                "NL0981", "a run ends after `--steps` or after `--minutes`: give exactly one of them, above 0"
            )
        for name, lowest in (
            ("batch", 1),
            ("length", 2),
            ("seed", 0),
            ("threads", 0),
            ("steps", 0),
            ("minutes", 0),
            ("accumulate", 1),
            ("spike", 0),
        ):
            value = getattr(self, name)
            if not value >= lowest:
                raise fault("NL0981", f"`{option(name)}` must be at least {lowest}, found {value}")
        if 0 < self.spike <= 1:
            raise fault("NL0981", f"`--spike` must be above 1, or 0 for none, found {self.spike}")
        words = {"on_fault": ON_FAULT, "precision": PRECISIONS, "recompute": RECOMPUTE, "compiled": COMPILED}
        for name, known in words.items():
            if getattr(self, name) not in known:
                said = " or ".join(f"`{word}`" for word in known)
                raise fault("NL0981", f"`{option(name)}` is {said}, found `{getattr(self, name)}`")

    def write(self, folder: Path) -> None:
        """Write `run.json`."""
        write_text(folder / RUN, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")


def read_config(folder: Path) -> RunConfig:
    """Read `run.json`.  Raises NL0982 if there is none or it cannot be read."""
    path = folder / RUN
    if not path.is_file():
        raise fault(
            "NL0982",
            f"`{folder}` is no run: it has no `{RUN}`",
            help="train first: `nldsl train SPEC --out RUN`",
        )
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in fields(RunConfig)}
        if isinstance(body.get("compiled"), bool):  # as runs had it that knew no `auto`
            body["compiled"] = "yes" if body["compiled"] else "no"
        config = RunConfig(**{name: value for name, value in body.items() if name in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise fault("NL0982", f"`{path}` cannot be read: {error}") from error
    return replace(config, arguments={name: frozen(value) for name, value in config.arguments.items()})


def frozen(value: Any) -> Static:
    """JSON lists back to the tuples a program takes."""
    return tuple(frozen(item) for item in value) if isinstance(value, list) else value


def asked(name: str, value: Any) -> str:
    """A choice of a run as it was typed.

    Example:
        >>> asked("on_fault", "skip"), asked("arguments", {"dim": 8}), asked("stream", False)
        ('`--on-fault skip`', '`--set dim=8`', 'no `--stream`')
    """
    if isinstance(value, bool):
        return f"`{option(name)}`" if value else f"no `{option(name)}`"
    if name == "arguments":
        return f"`{' '.join(f'--set {n}={v}' for n, v in value.items())}`" if value else "no `--set`"
    return f"`{value}`" if name in UNTYPED else f"`{option(name)} {value}`"


def require_same(old: RunConfig, new: RunConfig) -> None:
    """Raise NL0983 unless `new` only changes what a resumed run may change."""
    for f in fields(RunConfig):
        if f.name in MAY_CHANGE or (old.imported and f.name not in OF_THE_SPEC):
            continue
        before, now = getattr(old, f.name), getattr(new, f.name)
        if f.name == "digests":  # compare the texts both know: a process may have read more of the library
            changed = sorted(k for k in before.keys() & now.keys() if before[k] != now[k])
            before, now = ({k: d[k] for k in changed} for d in (before, now))
        if before == now:
            continue
        said = f"the run was started with {asked(f.name, before)}, now it is {asked(f.name, now)}"
        if f.name == "digests":
            said = f"{', '.join(f'`{k}`' for k in changed)} has changed since the run was started"
        raise fault(
            "NL0983",
            said,
            help="resume with what it was started with, or start another run with another `--out`",
        )
