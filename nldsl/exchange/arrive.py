"""`nldsl import hf:FOLDER`: a model of transformers as a specification and a run with its weights."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nldsl.driver import compile as compile_model
from nldsl.evaluate.tokens import TOKENIZER_FILES
from nldsl.exchange.architecture import read_architecture
from nldsl.exchange.errors import refused
from nldsl.exchange.place import new_folder
from nldsl.exchange.spec_text import spec_text, unrolled
from nldsl.exchange.stack import read_stack
from nldsl.exchange.weights import Shards, named_weights
from nldsl.runtime.model import Model
from nldsl.source import SourceFile
from nldsl.syntax import format_text
from nldsl.train.checkpoint import Checkpoint, save
from nldsl.train.config import RUN, RunConfig
from nldsl.train.loop import CHECKPOINTS, load_weights
from nldsl.train.run import SPECIFICATION

SCHEME = "hf:"


def import_hub(source: str, out: str | Path, *, name: str = "", stack: str = "", force: bool = False) -> Path:
    """Bring in the model folder `source` (`hf:FOLDER`) as the new run `out`: its specification, its weights.

    `name` is that of the model in the specification (the folder's, if empty); `stack` turns its feed-forward
    blocks into levels (Sec. 7.3).  Nothing is downloaded, and of the folder no code is run.  Errors: NL1101
    (`out`), NL1104 (`source`), NL1105 to NL1107 (`read_architecture`, `Shards`, `read_stack`).
    """
    folder = _folder(source)
    architecture = read_architecture(folder)
    stacked = read_stack(stack) if stack else None
    called = name or identifier(folder.resolve().name)
    file = SourceFile(f"{called}.nl", spec_text(called, architecture, stacked))
    text = format_text(file)
    with new_folder(out, mark=RUN, force=force) as run:
        path = run / SPECIFICATION / f"{called}.nl"
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
        model = cast(Model, compile_model(path))
        weights = named_weights(
            architecture,
            Shards(folder),
            unrolled=unrolled(architecture, stacked),
            stacked=stacked is not None,
        )
        _keep(run, model, called, weights, folder)
    return Path(out)


def _folder(source: str) -> Path:
    """The local folder that `hf:FOLDER` names."""
    if not source.startswith(SCHEME):
        raise refused(
            "NL1104",
            f"`{source}` does not say of which library it is",
            help=f"`{SCHEME}{source}` for a folder of transformers",
        )
    return Path(source.removeprefix(SCHEME))


def identifier(text: str) -> str:
    """A name of the language made of any text.

    Example:
        >>> identifier("Llama-3.2-1B"), identifier("7b"), identifier("--")
        ('llama_3_2_1b', 'model_7b', 'model')
    """
    found = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "model"
    return found if found[0].isalpha() else f"model_{found}"


def _keep(run: Path, model: Model, name: str, weights: dict[str, Tensor], folder: Path) -> None:
    """Write the checkpoint of a run before its first step, its tokenizer, and what it was asked: nothing."""
    program: Any = cast(Any, model).program
    where = f"{SPECIFICATION}/{name}.nl"
    config = RunConfig(name, where, dict(program.sources), imported=f"{SCHEME}{folder.name}")
    found = Checkpoint(
        0,
        {f"weights/{path}": tensor for path, tensor in weights.items()},
        {"imported": config.imported, "config": asdict(config)},
    )
    load_weights(cast(Any, model), found)  # refuses what does not fit
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise refused("NL1105", f"`{folder}` holds weights that are not finite")
    save(run / CHECKPOINTS, found, keep=1)
    for file in TOKENIZER_FILES:
        if (folder / file).is_file():
            (run / file).write_bytes((folder / file).read_bytes())
    config.write(run)
