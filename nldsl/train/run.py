"""A run: a folder with what was asked (`run.json`), the spec, the data, the log and the checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from nldsl.assets import specs_folder
from nldsl.catalog.values import Static
from nldsl.diagnostics import DiagnosticBag
from nldsl.evaluate import labelled
from nldsl.evaluate.session import Session
from nldsl.evaluate.tokens import Tokens, tokens_of
from nldsl.runtime.model import Model
from nldsl.spec import load
from nldsl.train import checkpoint as saved
from nldsl.train.building import TrainableModel, build, step_of
from nldsl.train.config import RUN, RunConfig, read_config, require_same
from nldsl.train.data import prepare
from nldsl.train.engine import Engine, closing
from nldsl.train.errors import fault
from nldsl.train.fitting import require_labels, require_streams, require_vocabulary
from nldsl.train.groups import training_plan
from nldsl.train.joining import join, restarted
from nldsl.train.loop import (
    CHECKPOINTS,
    Trainer,
    TrainResult,
    load_weights,
)
from nldsl.train.memory import Memory, predict
from nldsl.train.prepared import TOKENIZER
from nldsl.train.tokenizing import EXTRA

SPECIFICATION = "spec"


def train(
    source: str | Path,
    *,
    out: str | Path,
    data: str = "python-stdlib",
    steps: int = 0,
    minutes: float = 0.0,
    batch: int = 16,
    length: int = 256,
    seed: int = 0,
    arguments: Mapping[str, Static] | None = None,
    resume: bool = False,
    threads: int = 0,
    accumulate: int = 1,
    spike: float = 0.0,
    on_fault: str = "stop",
    stream: bool = False,
    precision: str = "float32",
    recompute: str = "none",
    compiled: str = "no",
    tensorboard: bool = False,
    keep: int = 3,
    engine: Engine | None = None,
    evaluate_at: Collection[int] = (),
    show: bool = True,
) -> TrainResult:
    """Train the model `source` and leave everything about it in the folder `out`.

    Arguments: `data` is a file, a folder or `python-stdlib`; `resume` goes on from the newest checkpoint in
    `out`; `threads` (0: as torch decides) bounds torch's; `keep` is the number of checkpoints kept;
    `engine` is what `join(...)` gives: a device, or processes that `torchrun` started, which share every
    batch; held-out text is looked at ten times and after the steps in `evaluate_at`; `show` prints progress,
    `tensorboard` writes what is logged for it too; `RunConfig` tells of the rest.

    The same arguments give the same weights on the same machine, and a run that was stopped and resumed
    those of one that was not.  A schedule without `steps` of its own spans the whole run, so a run that
    is made longer on resumption goes on along the longer schedule.

    Errors: `SpecError` with findings about the spec, the data (NL095x), the groups of `train` (NL096x),
    the checkpoints (NL097x), the run (NL098x) or the processes (NL099x); `KeyboardInterrupt` after saving.
    """
    config = RunConfig(str(source), arguments=dict(arguments or {}), data=data, steps=steps, minutes=minutes)
    config = replace(config, batch=batch, length=length, seed=seed, threads=threads)
    config = replace(config, accumulate=accumulate, spike=spike, on_fault=on_fault, stream=stream)
    config = replace(config, precision=precision, recompute=recompute, compiled=compiled)
    if keep < 1:
        raise fault("NL0981", f"`--keep` must be at least 1, found {keep}")
    with closing(engine or join()) as found:
        trainer = start(config, Path(out), resume, found)
        return trainer.run(keep=keep, show=show, evaluate_at=evaluate_at, board=tensorboard)


def start(config: RunConfig, folder: Path, resume: bool, engine: Engine | None = None) -> Trainer:
    """A trainer at the beginning of a new run in `folder`, or where the run in it was left."""
    engine = engine or Engine()
    engine.require_shares(config.batch)
    if restarted(folder / RUN):
        resume = bool(saved.checkpoints(folder / CHECKPOINTS))
    else:
        require_place(folder, resume)
    _seed(config.threads, config.seed)
    where, texts = texts_of(config.source)
    model = build(config.source, config)
    require_streams(model.program)
    config = replace(config, specification=where, digests=dict(model.program.sources))
    engine.require_alike(repr(config))
    with as_it_was(folder, engine.first and not resume):
        folder.mkdir(parents=True, exist_ok=True)
        if resume:
            require_same(read_config(folder), config)
        engine.require_room(model, config)
        corpus = engine.led(lambda: prepare(config.data, folder / "data", length=config.length))
        require_labels(model.program, training_plan(model.program), corpus)
        require_vocabulary(model, corpus)
        trainer = Trainer(model, corpus, config, folder, next(iter(texts.values()), ""), engine)
    if resume:
        trainer.restore()
    if engine.first:
        keep_texts(folder, texts)
        if corpus.tokenizer:
            saved.write_text(folder / TOKENIZER, corpus.tokenizer)
        config.write(folder)
    return trainer


def predict_memory(
    source: str | Path,
    *,
    batch: int = 16,
    length: int = 256,
    arguments: Mapping[str, Static] | None = None,
    recompute: str = "none",
    precision: str = "float32",
) -> Memory:
    """The bytes that a training step of the model `source` takes, by what takes them."""
    config = RunConfig(str(source), arguments=dict(arguments or {}), batch=batch, length=length, steps=1)
    config = replace(config, recompute=recompute, precision=precision)
    model = build(config.source, config)
    return predict(model, model.program.train, step_of(model, config), batch=batch, length=length)


def _seed(threads: int, seed: int) -> None:
    """Bound torch's threads (0: as torch decides) and seed its generator."""
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)


@dataclass(frozen=True)
class Run:
    """A trained run: its model with the newest weights, what it was asked, and where it is."""

    model: TrainableModel
    config: RunConfig
    folder: Path

    @property
    def tokens(self) -> Tokens:
        """What turns text into tokens: bytes, or the tokenizer in the folder of the run.

        Raises NL0941 if the package for it is missing, NL0942 if it cannot be read.
        """
        try:
            return tokens_of(self.folder)
        except ModuleNotFoundError as wrong:
            help = f"pip install 'nldsl[{EXTRA}]'"
            raise fault(
                "NL0941", "the run has a tokenizer, and `tokenizers` is missing", help=help
            ) from wrong
        except ValueError as wrong:
            raise fault("NL0942", str(wrong)) from wrong

    def session(self, *, learn: bool | Sequence[str] = False, batch: int = 1) -> Session:
        """A session on the model: `feed`, `generate`, `save`, `load`, `fork`, `merge`.

        learn: whether memories that minimise the task may change, or the names of the levels that may.
        Raises NL0984 for a model that tells classes instead of tokens.
        """
        self.require_tokens()
        return Session(cast(Model, self.model), learn=learn, batch=batch, tokens=self.tokens)

    def require_tokens(self) -> None:
        """Raise NL0984 unless what the model tells are tokens."""
        if labelled(self.model.program):
            raise fault(
                "NL0984",
                f"`{self.model.program.name}` tells classes of tokens, and no next token",
                help="in Python, `nldsl.load(RUN).model(tokens)[0]` are the logits of classes",
            )


def load_run(out: str | Path) -> Run:
    """The model of a run with the weights of its newest checkpoint, and what the run was asked.

    Raises `SpecError`: NL0982 if `out` is no run, NL097x if it has no whole checkpoint, NL0986 if its
    weights do not fit its spec any more.
    """
    folder = Path(out)
    config = read_config(folder)
    source = str(folder / config.specification) if config.specification else config.source
    model = build(source, config)
    load_weights(model, saved.load_newest(folder / CHECKPOINTS))
    return Run(model, config, folder)


def require_place(folder: Path, resume: bool) -> None:
    """Raise NL0988 if a run would be written over, NL0982 if there is none to resume."""
    if (folder / RUN).exists() and not resume:
        raise fault(
            "NL0988", f"there is a run in `{folder}` already", help="add `--resume`, or use another `--out`"
        )
    if resume:
        read_config(folder)


@contextmanager
def as_it_was(folder: Path, mine: bool) -> Iterator[None]:
    """A run that is refused leaves no folder, and no data that the next one would be held to; if `mine`."""
    made = [path for path in (folder / "data", folder) if not path.exists()]
    try:
        yield
    except Exception:
        for path in made if mine else ():
            if path != folder:
                shutil.rmtree(path, ignore_errors=True)
            elif folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def texts_of(source: str) -> tuple[str, dict[str, str]]:
    """Where the run keeps its spec (empty for one of the library), and its texts, the main one first.

    The files of `use` lines keep their places relative to the main file.
    """
    bag = DiagnosticBag()
    main = load(source, bag).main
    bag.raise_if_errors()
    library = specs_folder().resolve()
    path = main.path.resolve() if main.path else None
    if path is not None and path.is_relative_to(library):
        return "", {path.name: main.file.text}
    name = path.name if path else "main" + (".yaml" if main.file.name.endswith(".yaml") else ".nl")
    texts = {name: main.file.text}
    for unit in main.visible():
        other = unit.path.resolve() if unit.path else None
        if path is None or other is None or other == path or other.is_relative_to(library):
            continue
        texts[other.relative_to(path.parent).as_posix()] = unit.file.text
    return f"{SPECIFICATION}/{name}", texts


def keep_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the texts of the spec below `spec/`."""
    for name, text in texts.items():
        target = folder / SPECIFICATION / name
        target.parent.mkdir(parents=True, exist_ok=True)
        saved.write_text(target, text)
