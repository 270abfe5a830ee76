"""A model of transformers whose feed-forward blocks become levels that go on learning.

    python examples/adapt/run.py [--steps 300] [--rate 1.0] [--bytes 8192]

Trains a small Llama of transformers on one of Python's modules, brings it in as `nldsl import --stack`
does, and lets it read specifications, which it has never seen, as `nldsl run --online` does: what each
segment takes in bits per byte before and after it is learnt, and what it takes where nothing learns.
"""

from __future__ import annotations

import argparse
import inspect
import math
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nldsl.assets import specs_folder
from nldsl.evaluate import Segment, learn_online
from nldsl.exchange import import_hub
from nldsl.train import load_run

LENGTH, BATCH, SEGMENT = 128, 8, 1024
CHUNKS = "[64, 256]"


def pretrained(folder: Path, steps: int) -> float:
    """Train a Llama of bytes on the text of `argparse` and save it; its last loss in bits per byte."""
    torch.set_num_threads(1)  # so small a model is slower on several
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, tie_word_embeddings=False, **sizes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    text = torch.tensor(list(inspect.getsource(argparse).encode()))
    for _ in range(steps):
        begin = torch.randint(len(text) - LENGTH, (BATCH,)).tolist()
        ids = torch.stack([text[b : b + LENGTH] for b in begin])
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.save_pretrained(folder)
    return loss.item() / math.log(2)


def read(folder: Path, rate: float, text: bytes) -> tuple[Segment, ...]:
    """The segments of a stream that the model in `folder` reads, its levels learning at `rate`."""
    stack = f"cms(chunks = {CHUNKS}, rate = {rate})"
    run = import_hub(f"hf:{folder}", folder.parent / f"run-{rate}", stack=stack)
    loaded = load_run(run)
    return learn_online(loaded.session().model, text, SEGMENT, tokens=loaded.tokens)[0]


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def main(steps: int, rate: float, length: int) -> None:
    """Print the table."""
    text = b"".join(path.read_bytes() for path in sorted((specs_folder() / "blocks").glob("*.nl")))[:length]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "llama"
        print(f"trained on argparse: {pretrained(folder, steps):.3f} bits per byte")
        still, learnt = read(folder, 0.0, text), read(folder, rate, text)
    print(f"{'bytes':>16}  {'still':>7} {'before':>7} {'after':>7}   bits per byte")
    for without, s in zip(still, learnt, strict=True):
        place = f"{s.first:,} - {s.first + s.bytes:,}"
        print(f"{place:>16}  {without.before:7.3f} {s.before:7.3f} {s.after:7.3f}")
    forgotten = mean([s.forgotten for s in learnt])
    print(f"forgotten by the end: {forgotten:+.3f}")
    means = [mean([s.before for s in found]) for found in (still, learnt)]
    print(f"read for the first time: {means[0]:.3f} still, {means[1]:.3f} learning")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--bytes", type=int, default=8 * 1024)
    asked = parser.parse_args()
    main(asked.steps, asked.rate, asked.bytes)
