"""The card of an exported model: what it is, how it is used, what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import nldsl
from nldsl.evaluate.contract import writes_task
from nldsl.graph import build_graph
from nldsl.runtime.model import Model
from nldsl.train import Run

_USE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)
prompt = tokenizer("def ", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=64, do_sample=False)[0]))
```
"""


def model_card(run: Run, name: str) -> str:
    """The README of the folder `name`."""
    model = cast(Model, run.model)
    program = run.model.program
    count = sum(p.numel() for p in model.parameters())
    head = "---\nlibrary_name: transformers\npipeline_tag: text-generation\n"
    head += f"tags: [nldsl, {program.name}]\n---"
    about = (
        f"`{program.name}`, a model of {count:,} parameters written in nldsl {nldsl.__version__} and "
        "compiled to PyTorch. `program_nldsl.py` is the whole model as readable source; nldsl need not be "
        "installed."
    )
    state = (
        f"## State\n\nThe state of the memories takes the place of a cache: {_state(model)} It is the field "
        "`state` of every output, and an argument of `forward` and `generate` to go on from. Padding on "
        "either side is left out by `attention_mask`: it moves no memory and no clock. Beam search reorders "
        "the state."
    )
    parts = [head, f"# {name}", about, _USE.format(name=name).rstrip(), state, _learning(run)]
    parts += [f"## Levels\n\n{_levels(run)}", f"## Training\n\n{_training(run)}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _state(model: Model) -> str:
    size = model.init_state(1).bytes()
    text = f"{size:,} bytes for a new sequence."
    grows = any(name.endswith("/keys") for name in model.init_state(1).tensors())
    return text + (" Attention keeps what it has seen, so it grows." if grows else " It does not grow.")


def _learning(run: Run) -> str:
    if not writes_task(run.model.program):
        return ""
    return (
        "## Learning\n\nSome memories minimise the task itself. A forward pass, and so `generate`, leaves "
        "them as they are; `loss, state = model.model.learn(tokens, state)` performs their writes, each at "
        "its clock, in the state."
    )


def _levels(run: Run) -> str:
    levels = build_graph(run.model.program).levels
    rows = [f"| {one.number} | {', '.join(one.names)} | {one.frequency} |" for one in levels]
    return "\n".join(["| level | of | frequency |", "|---|---|---|", *rows])


def _training(run: Run) -> str:
    config = run.config
    data = Path(config.data).name
    length = f"{config.steps:,} steps" if config.steps else f"{config.minutes:g} minutes"
    return (
        f"Asked for: {length} of {config.batch} windows of {config.length} tokens of `{data}`, seed "
        f"{config.seed}. What it generates is what such a run gives: nothing was done to make it helpful or "
        "harmless."
    )
