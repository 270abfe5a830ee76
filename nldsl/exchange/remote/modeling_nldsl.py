"""An nldsl model in the words of `transformers`: logits, loss, and `generate` with its state as the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation import GenerationMixin
from transformers.utils import ModelOutput

from .configuration_nldsl import NldslConfig
from .program_nldsl import State, build


@dataclass
class NldslOutput(ModelOutput):
    """`loss` if labels were given, `logits [B, T, vocab]`, and the `state` behind the last token."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: State | None = None


class NldslForCausalLM(PreTrainedModel, GenerationMixin):
    """The compiled program (`self.model`) as a causal language model.

    The state takes the place of a cache of keys and values: `forward` returns it, and takes it to go on.
    Padding may stand on any side: what `attention_mask` leaves out is not seen and moves no clock.
    A forward pass performs no task write; `self.model.learn(tokens, state, mask)` does.
    """

    config_class = NldslConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _is_stateful = True

    def __init__(self, config: NldslConfig) -> None:
        super().__init__(config)
        # `from_pretrained` builds models without memory; these weights are small until they are loaded.
        with torch.device("cpu"):
            self.model = build(0)
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """Weights have their first values from `build`."""

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        state: State | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int = 0,
    ) -> NldslOutput | tuple[Any, ...]:
        """Tokens `[B, T]` to logits `[B, T, vocab]`.

        `attention_mask [B, T]` (or longer, then its last T columns) is 0 at padding.  `labels [B, T]` are
        tokens, -100 is no target; each is predicted from the one before it.  `logits_to_keep` keeps the last
        so many positions.
        """
        mask = None if attention_mask is None else attention_mask[:, -input_ids.shape[1] :].bool()
        if mask is not None and bool(mask.all()):
            mask = None
        logits, after = self.model(input_ids, state=state, mask=mask)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        if logits_to_keep:
            logits = logits[:, -logits_to_keep:]
        output = NldslOutput(loss=loss, logits=logits, state=after if use_cache is not False else None)
        return output.to_tuple() if return_dict is False else output

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        state: State | None = None,
        goes_on: bool = False,
        use_cache: bool | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """The prompt at first, then the last token and the state behind those before it."""
        if goes_on and state is not None:
            return {"input_ids": input_ids[:, -1:], "state": state, "use_cache": use_cache}
        given = {"input_ids": input_ids, "state": state, "use_cache": use_cache}
        return given | {"attention_mask": attention_mask}

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *_: Any, **__: Any
    ) -> dict[str, Any]:
        mask = model_kwargs.get("attention_mask")
        if mask is not None:
            model_kwargs["attention_mask"] = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], -1)
        return model_kwargs | {"state": outputs.get("state"), "goes_on": True}

    @staticmethod
    def _reorder_cache(state: State | None, beam_idx: Tensor) -> State | None:
        """The states of the beams that go on."""
        return None if state is None else state.map(lambda x: x.index_select(0, beam_idx.to(x.device)))
