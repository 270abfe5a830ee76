"""Judging a trained model: bits per byte on held-out text, byte-count baselines, generation."""

from nldsl.evaluate.bits import bits_per_byte, next_token_loss
from nldsl.evaluate.contract import LanguageModel, labelled, learns, writes_task
from nldsl.evaluate.generate import Sampling, generate
from nldsl.evaluate.ngram import NgramModel, count_model
from nldsl.evaluate.online import Segment, learn_online
from nldsl.evaluate.session import Session

__all__ = [
    "LanguageModel",
    "NgramModel",
    "Sampling",
    "Segment",
    "Session",
    "bits_per_byte",
    "count_model",
    "generate",
    "labelled",
    "learn_online",
    "learns",
    "next_token_loss",
    "writes_task",
]
