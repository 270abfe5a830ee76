"""Training a compiled model on bytes: data, parameter groups, checkpoints, the loop."""

from nldsl.train.config import RunConfig
from nldsl.train.joining import join
from nldsl.train.loop import Trainer, TrainResult
from nldsl.train.run import Run, load_run, train

__all__ = ["Run", "RunConfig", "TrainResult", "Trainer", "join", "load_run", "train"]
