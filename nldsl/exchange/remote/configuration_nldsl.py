"""The configuration of a model exported by nldsl; the model itself is the text of `program_nldsl.py`."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class NldslConfig(PretrainedConfig):
    """What `transformers` asks about a model.

    `program` is the name of the specification, `hidden_size` the width of its embedding,
    `max_position_embeddings` the length that tools cut at: the model itself has no limit.
    """

    model_type = "nldsl"

    def __init__(
        self,
        vocab_size: int = 256,
        program: str = "",
        hidden_size: int = 0,
        max_position_embeddings: int = 2048,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.program = program
        self.hidden_size = hidden_size
        self.max_position_embeddings = max_position_embeddings
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)
