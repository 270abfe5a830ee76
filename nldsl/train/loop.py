"""The training loop: a pure function of model, data and configuration, saved at every tenth of the way."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nldsl.catalog.schedules import SCHEDULES
from nldsl.evaluate import LanguageModel, writes_task
from nldsl.evaluate.bits import Windows, as_tokens, summed_bits, summed_hits, targets_of
from nldsl.train import checkpoint as saved
from nldsl.train.building import TrainableModel
from nldsl.train.carried import Carried
from nldsl.train.condition import levels_of, pace_of
from nldsl.train.config import RunConfig
from nldsl.train.data import Corpus
from nldsl.train.engine import Engine, module_of
from nldsl.train.errors import fault
from nldsl.train.groups import claim, inner_schedules, training_plan
from nldsl.train.guard import SKIPS_IN_A_ROW, Guard, culprit, listed, not_finite, trained_by, worst_token
from nldsl.train.interrupt import Interruption
from nldsl.train.log import RunLog, Silent, read_log
from nldsl.train.manner import compile_blocks, face, recompute, require_rows_once, waiting
from nldsl.train.optimisers import OptimiserGroup
from nldsl.train.passes import backward, backward_from
from nldsl.train.plot import loss_svg

__all__ = ["Trainer", "TrainResult", "TrainableModel", "backward", "backward_from", "load_weights"]
CHECKPOINTS = "checkpoints"
TENTH = 10
LONGEST_UNSAVED = 600.0
HELDOUT_WINDOWS = 64


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.  `seconds` is time in training steps; evaluation and saving are not in it.

    With labels `heldout_bits_per_byte` are bits per label.
    """

    steps: int
    seconds: float
    tokens: int
    loss: float
    heldout_bits_per_byte: float
    parameters: int
    folder: Path
    heldout_accuracy: float | None = None
    """The share of held-out labels that are the likeliest class."""


class Trainer:
    """A model in training: `run` takes it from wherever it is to the end of its configuration."""

    def __init__(
        self,
        model: TrainableModel,
        corpus: Corpus,
        config: RunConfig,
        folder: Path,
        specification: str = "",
        engine: Engine | None = None,
    ) -> None:
        """`specification` is the text of the spec, which every checkpoint carries; `engine`: one process."""
        self.model, self.corpus, self.config, self.folder = model, corpus, config, folder
        self.specification, self.engine = specification, engine or Engine()
        self.plan = training_plan(model.program)
        self.unit = "label" if corpus.classes else "byte"
        recompute(model, config.recompute)
        self.engine.prepare(model)
        self.parameters = model.parameter_paths()
        self.rates = inner_schedules(model.program)
        learnt = {path: p for path, p in self.parameters.items() if path not in self.rates}
        claims = claim(self.plan, learnt, model.parameter_roles())
        self.groups: list[OptimiserGroup] = self.engine.groups(claims, module_of(model))
        self.alternate()
        require_rows_once(self.groups, config.recompute)
        self.made = compile_blocks(model, config.compiled, config.precision)
        self.step = 0
        self.seconds = 0.0
        self.loss = math.nan
        self.heldout = math.nan
        self.right: float | None = None
        self.guard = Guard(config.spike)
        self.carried, self.behind = Carried(), list[Any]()

    def alternate(self) -> None:
        """Tell rules that look at rows whether one backward pass sees all of them."""
        cut = 0 < self.plan.truncate < self.config.length
        segments = writes_task(self.model.program)
        for group in self.groups:
            group.alternate(cut or segments or self.config.accumulate > 1)

    @property
    def progress(self) -> float:
        """The share of the run that is done, in [0, 1]."""
        if self.config.steps:
            return min(1.0, self.step / self.config.steps)
        return min(1.0, self.seconds / (60 * self.config.minutes))

    @property
    def tokens(self) -> int:
        """Predictions trained on so far."""
        return self.step * self.tokens_per_step

    @property
    def tokens_per_step(self) -> int:
        """Predictions of one step."""
        return self.config.accumulate * self.config.batch * self.config.length

    def face(self, model: LanguageModel) -> LanguageModel:
        """A model in the precision of the run."""
        return face(model, self.config.precision, self.engine.device)

    def run(
        self, *, keep: int, show: bool, evaluate_at: Collection[int] = (), board: bool = False
    ) -> TrainResult:
        """Train to the end.  Ctrl-C and SIGTERM save and raise `KeyboardInterrupt`.

        Held-out text is looked at after every tenth of the way, and after the steps in `evaluate_at`.  With
        `board` the log is written for TensorBoard too.
        """
        tenth, since_saved, asked = int(TENTH * self.progress), time.monotonic(), False
        engine = self.engine
        with (
            engine.log(self.folder, resumed_at=self.step, show=show, board=board) as log,
            Interruption(patient=engine.world > 1) as interruption,
        ):
            log.say(waiting(self.config.compiled, self.made))
            while self.progress < 1 and not asked:
                log.step(self.train_step(), self.progress)
                late = time.monotonic() - since_saved > LONGEST_UNSAVED
                asked, late = engine.agreed(interruption.asked, late)
                engine.settle()
                if int(TENTH * self.progress) > tenth or late:
                    tenth, since_saved = int(TENTH * self.progress), time.monotonic()
                    self.evaluate(log)
                    self.save(keep, wait=False)
                elif self.step in evaluate_at:
                    self.evaluate(log)
            if asked:
                self.save(keep)
                log.say(f"saved step {self.step}: the same command with --resume goes on from there")
            engine.settle(wait=True)
        if engine.first:
            self.draw()
        if asked:
            raise KeyboardInterrupt
        count = sum(p.numel() for p in self.parameters.values())
        found = (self.step, self.seconds, self.tokens, self.loss, self.heldout, count, self.folder)
        return TrainResult(*found, heldout_accuracy=self.right)

    def train_step(self) -> dict[str, Any]:
        """One step on the batch of this step; returns its record.  A fault raises or skips."""
        begin = time.perf_counter()
        rates = self.set_rates()
        total = self.gradients()
        norm = float(total)
        record: dict[str, Any] = {"gradient_norm": finite_or_none(norm), **rates}
        wrong = self.guard.judge(self.loss, norm)
        if wrong:
            record["skipped"] = self.skip_or_stop(wrong, norm)
        else:
            self.clip(total)
            self.guard.taken(norm)
        for group in self.groups:
            scheduled = group.step(self.step, self.progress)
            record |= {f"{group.name}.{argument}": value for argument, value in scheduled.items()}
        if self.config.stream:
            # What is not finite must not live on in the state.
            self.carried.after([] if wrong == "not finite" else self.behind, self.model)
        self.step += 1
        taken = self.engine.longest(time.perf_counter() - begin)
        self.seconds += taken
        bits = self.loss / math.log(2) / self.corpus.bytes_per_token[0]
        losses = {"loss": self.loss, f"bits_per_{self.unit}": bits}
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            **(losses if math.isfinite(self.loss) else {}),
            "tokens_per_second": round(self.tokens_per_step / taken, 1),
            **record,
        }

    @torch.no_grad()
    def set_rates(self) -> dict[str, float]:
        """Rates of writes that follow a schedule, set for this step; what they are, by path."""
        shown: dict[str, float] = {}
        for path, (schedule, options) in self.rates.items():
            shown[path] = SCHEDULES[schedule].value(self.step, self.progress, dict(options))
            self.parameters[path].fill_(shown[path])
        return shown

    def windows(self) -> tuple[Tensor, Tensor]:
        """What this step trains on, `[accumulate * batch, length + 1]`, and which rows begin a document."""
        config = self.config
        rows = config.batch * config.accumulate
        asked = {"seed": config.seed, "step": self.step, "batch": rows, "length": config.length}
        if not config.stream:
            return as_tokens(self.corpus.batch(**asked)), torch.ones(rows, dtype=torch.bool)
        windows, fresh = self.corpus.read_on(**asked)
        return as_tokens(windows), torch.from_numpy(fresh)

    def gradients(self) -> Tensor:
        """Put the gradients of this step in place, batch by batch; their norm over all parameters."""
        for parameter in self.parameters.values():
            parameter.grad = None
        for group in self.groups:
            group.begin(self.step, self.progress)
        windows, fresh = self.windows()
        share = 1 / max(1, targets_of(windows))
        loss, self.behind, engine = 0.0, [], self.engine
        parts = list(zip(windows.split(self.config.batch), fresh.split(self.config.batch), strict=True))
        with engine.passes():
            for index, (part, begin) in enumerate(parts):
                tokens, begin = engine.mine(part), engine.mine(begin)
                state = self.carried.before(self.model, index, begin) if self.config.stream else None
                around = partial(self.around, index + 1 == len(parts))
                called = self.face(engine.face(self.model))
                found, state = backward_from(called, tokens, state, self.plan.truncate, share, around)
                loss += found
                # What a memory that has not been written yet holds is the parameter itself, which will move.
                self.behind.append(state.clone() if self.config.stream else None)
            self.loss = engine.exchange(loss)
        return engine.norm(self.parameters)

    def around(self, last_batch: bool, last_piece: bool) -> AbstractContextManager[None]:
        """What stands around one pass of a step."""
        return self.engine.piece(last_batch and last_piece)

    def clip(self, norm: Tensor) -> None:
        """Scale the gradients down to the norm `clip`, if the plan has one."""
        if self.plan.clip > 0:
            self.engine.scale(self.parameters, self.plan.clip, norm)

    def skip_or_stop(self, wrong: str, norm: float) -> str:
        """Forget the gradients of a step that must not be taken, or stop the run.

        The clocks go on: a slow level fires when it would have, with what it has gathered.  Raises NL0985
        (not finite) or NL0989 (a spike) under `on_fault = "stop"`, and after too many skips in a row.
        """
        self.guard.skipped += 1
        if self.config.on_fault == "stop" or self.guard.skipped > SKIPS_IN_A_ROW:
            self.stop(wrong, norm)
        for parameter in self.parameters.values():
            parameter.grad = None
        return wrong

    def stop(self, wrong: str, norm: float) -> None:
        """Save and raise what names the step, the parameter and the token."""
        name, said = culprit({path: self.engine.full(p.grad) for path, p in self.parameters.items()})
        what = f"the gradient norm is {norm:.4g}, a spike" if wrong == "spike" else "training diverged"
        message = f"{what} at step {self.step + 1}: {said}"
        left = self.save_at_fault()
        with self.engine.whole():
            worst = worst_token(self.model, self.windows()[0].to(self.engine.device))
        notes = [f"loss {self.loss:.4g}, gradient norm {norm:.4g}", worst]
        notes += [trained_by(name, [(g.name, g.parameters) for g in self.groups]), left]
        advice = "lower the learning rates, add `clip` to `train`, or go on with `--resume --on-fault skip`"
        code = "NL0989" if wrong == "spike" else "NL0985"
        raise self.engine.stop(fault(code, message, notes=tuple(n for n in notes if n), help=advice))

    def save_at_fault(self) -> str:
        """Save what stands before a faulty step, deleting nothing, and say what is left."""
        self.guard.skipped -= 1  # the step is not over: a resumed run meets it again
        broken = not_finite({path: self.engine.full(p) for path, p in self.parameters.items()})
        if broken:
            kept = saved.checkpoints(self.folder / CHECKPOINTS)
            last = f"the last checkpoint is `{kept[-1]}`" if kept else "no checkpoint had been written"
            return f"{listed(broken)} is not finite already, so nothing was saved: {last}"
        before = len(saved.checkpoints(self.folder / CHECKPOINTS))
        return f"what stood before this step is saved in `{self.save(keep=before + 1)}`"

    def evaluate(self, log: RunLog | Silent) -> None:
        """Held-out bits per byte, and what memories do, on the same windows at every evaluation."""
        length, engine = self.config.length, self.engine
        windows = self.corpus.heldout_windows(length=length, limit=HELDOUT_WINDOWS)
        record = {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 3)}
        with engine.whole():
            mine, batch = engine.part(windows), max(1, self.config.batch // engine.world)
            found = summed_bits(self.face(self.model), mine, batch=batch)
            bits, count = (engine.summed(float(number)) for number in found)
            self.heldout = bits / count
            if self.corpus.classes:
                record |= self.accuracy(mine, batch)
            record |= levels_of(self.model, as_tokens(windows[:2]).to(engine.device))
        self.heldout /= self.corpus.bytes_per_token[1]
        record |= pace_of(self.model, self.tokens, self.seconds, length, engine.device, engine.world)
        if math.isfinite(self.heldout):
            log.heldout(record | {f"heldout_bits_per_{self.unit}": self.heldout})
        else:
            log.write(record | {"heldout": "not finite"})

    def accuracy(self, windows: Windows, batch: int) -> dict[str, float]:
        """The share of held-out labels that are the likeliest class, and of the last one of every window."""
        found = summed_hits(self.face(self.model), windows, batch=batch)
        labels = targets_of(as_tokens(windows))
        hits, last, whole, count = (self.engine.summed(float(n)) for n in (*found, labels))
        self.right = hits / count
        return {"heldout_accuracy": self.right, "heldout_accuracy_at_ends": last / whole}

    def learnt(self) -> dict[str, Tensor]:
        """Weights, constants and every memory of the optimisers, by the names of checkpoints."""
        tensors: dict[str, Tensor] = {f"weights/{path}": p for path, p in self.model.drawn_paths().items()}
        for index, group in enumerate(self.groups):
            tensors |= {f"optimiser/{index}/{name}": t for name, t in group.state().items()}
        return tensors

    def save(self, keep: int, *, wait: bool = True) -> Path:
        """Write a checkpoint of everything the next step depends on."""
        tensors = self.learnt()
        tensors |= {f"carried/{name}": t for name, t in self.carried.tensors().items()}
        tensors["rng/torch"] = torch.get_rng_state()
        rest = {
            "seconds": self.seconds,
            "loss": finite_or_none(self.loss),
            "heldout": finite_or_none(self.heldout),
            "right": self.right,
            "guard": self.guard.saved(),
            "carried": self.carried.structures(),
            "corpus": self.corpus.digest,
            "config": asdict(self.config),
            "specification": self.specification,
        }
        whole = saved.Checkpoint(self.step, tensors, rest)
        return self.engine.save(self.folder / CHECKPOINTS, whole, keep=keep, wait=wait)

    def restore(self) -> None:
        """Go back to the newest checkpoint.  Raises NL0986 if it does not belong to this model or data."""
        found = self.engine.load(self.folder / CHECKPOINTS, self.learnt(), self.config.batch)
        if found.rest.get("imported"):  # weights, and nothing that was learnt from these data yet
            load_weights(self.model, found)
            return
        if found.rest["corpus"] != self.corpus.digest:
            raise fault("NL0986", f"the data of `{self.folder}` are not those it was trained on")
        load_weights(self.model, found)
        for index, group in enumerate(self.groups):
            group.load(found.section(f"optimiser/{index}"))
        torch.set_rng_state(found.tensors["rng/torch"])
        carried = self.engine.place(found.section("carried"))
        self.carried.restore(found.rest.get("carried", []), carried)
        self.guard.restore(found.rest.get("guard", {}))
        self.right = found.rest.get("right")
        self.step, self.seconds = found.step, float(found.rest["seconds"])
        self.loss, self.heldout = (
            math.nan if found.rest[name] is None else float(found.rest[name]) for name in ("loss", "heldout")
        )

    def draw(self) -> None:
        """Write `loss.svg`."""
        picture = loss_svg(read_log(self.folder), f"{self.model.program.name} on {self.config.data}")
        saved.write_text(self.folder / "loss.svg", picture)


def finite_or_none(value: float) -> float | None:
    """A number that JSON has."""
    return value if math.isfinite(value) else None


def load_weights(model: TrainableModel, found: saved.Checkpoint) -> None:
    """Put the weights of a checkpoint into a model.  Raises NL0986 unless paths and shapes agree."""
    weights = found.section("weights")
    parameters = model.drawn_paths()
    for path in sorted(weights.keys() | parameters.keys()):
        have = tuple(weights[path].shape) if path in weights else "nothing"
        want = tuple(parameters[path].shape) if path in parameters else "nothing"
        if have != want:
            raise fault("NL0986", f"the checkpoint has {have} for `{path}`, and the model wants {want}")
    with torch.no_grad():
        for path, parameter in parameters.items():
            parameter.copy_(weights[path])
