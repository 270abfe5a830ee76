"""Hope on two CPU cores in a few minutes: check, verify, draw, train beside a transformer, compare, sample.

    python examples/demo/run.py [--seconds 75] [--out runs/demo]

Both models have the same number of parameters (within 3 %), see the same bytes in the same order and
train for the same time.  The byte-count models are counted on the same training bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

# Threads that wait asleep: spinning ones crawl where others use the machine too.  Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import nldsl  # noqa: E402
from nldsl.evaluate import Sampling, count_model, generate  # noqa: E402
from nldsl.spec.walk import parameters_of  # noqa: E402
from nldsl.train import TrainResult, load_run, train  # noqa: E402
from nldsl.train.data import prepare  # noqa: E402
from nldsl.train.loop import HELDOUT_WINDOWS  # noqa: E402

BATCH, LENGTH, SEED = 8, 256, 0
NEAR = 0.03
PROMPT = b"def "
DATA = "python-stdlib"
HERE = Path(__file__).parent
HOPE, TRANSFORMER = HERE / "hope_tiny.nl", HERE / "transformer.nl"
CONSOLE = Console(highlight=False, width=100)


def main() -> int:
    """Run every step; 0 if Hope beats the order-1 byte model, else 1."""
    options = parse_arguments()
    begin = time.monotonic()
    if options.out.exists():
        shutil.rmtree(options.out)
    options.out.mkdir(parents=True)
    look_at_hope(options.out, verify=not options.no_verify)
    results = train_both(options.out, options.seconds)
    won = report(options.out, results)
    CONSOLE.print(f"\nthe whole demonstration took {time.monotonic() - begin:.0f} s")
    return 0 if won else 1


def parse_arguments() -> argparse.Namespace:
    """The command line of the demonstration."""
    parser = argparse.ArgumentParser(description="Check, verify, draw and train Hope beside a transformer.")
    parser.add_argument("--seconds", type=float, default=75.0, help="training time of each model")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder that is written anew")
    parser.add_argument("--no-verify", action="store_true", help="leave `nldsl verify hope` out")
    return parser.parse_args()


def look_at_hope(out: Path, *, verify: bool) -> None:
    """Check, verify and draw the library's Hope with the command line, as one would by hand."""
    command(["check", "hope"])
    if verify:
        command(["verify", "hope"])
    for suffix in ("svg", "html"):
        command(["graph", "hope", "-o", str(out / f"hope.{suffix}")])


def command(arguments: list[str]) -> None:
    """Run `nldsl ...`; a failure ends the demonstration with its exit code."""
    CONSOLE.rule(f"nldsl {' '.join(arguments)}")
    done = subprocess.run([sys.executable, "-m", "nldsl", *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def size_of(spec: Path, **arguments: int) -> int:
    """The number of slow parameters of a model, counted in its program."""
    program = nldsl.program(str(spec), **arguments)
    return sum(math.prod(p.shape) for _, p in parameters_of(program.root))


def equal_transformer(target: int) -> dict[str, int]:
    """Arguments of a two-layer transformer with about `target` parameters, found by counting.

    Parameters grow with `dim`, so for every `expand` a bisection finds the nearest; of these the one
    that is nearest of all is taken.
    """
    heads = 2
    best: tuple[int, dict[str, int]] | None = None
    for expand in (2, 3, 4):
        low, high = 4, 256  # in units of 2 * heads: rotary embeddings pair up the channels of a head
        while low <= high:
            middle = (low + high) // 2
            arguments = {"dim": 2 * heads * middle, "depth": 2, "heads": heads, "expand": expand}
            count = size_of(TRANSFORMER, **arguments)
            if best is None or abs(count - target) < best[0]:
                best = (abs(count - target), arguments)
            low, high = (middle + 1, high) if count < target else (low, middle - 1)
    if best is None or best[0] > NEAR * target:
        raise SystemExit(f"no transformer has {target} parameters within {NEAR:.0%}")
    return best[1]


def train_both(out: Path, seconds: float) -> dict[str, TrainResult]:
    """Train both for the same time, and see to it that the transformer is judged at Hope's last step too."""
    common = {"data": DATA, "batch": BATCH, "length": LENGTH, "seed": SEED}
    CONSOLE.rule(f"training hope_tiny for {seconds:g} s")
    hope = train(HOPE, out=out / "hope_tiny", minutes=seconds / 60, **common)
    same = equal_transformer(hope.parameters)
    CONSOLE.rule(
        f"training a transformer for {seconds:g} s: {', '.join(f'{k} = {v}' for k, v in same.items())}"
    )
    place = out / "transformer"
    other = train(
        TRANSFORMER,
        out=place,
        minutes=seconds / 60,
        arguments=same,
        evaluate_at=[hope.steps],
        **common,
    )
    if other.steps < hope.steps:
        train(TRANSFORMER, out=place, steps=hope.steps, arguments=same, resume=True, **common)
    return {"hope_tiny": hope, "transformer": other}


def held_out_at(folder: Path, step: int) -> float:
    """Held-out bits per byte after `step` steps, from the log of a run."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [
        r["heldout_bits_per_byte"] for r in records if "heldout_bits_per_byte" in r and r["step"] == step
    ]
    return float(found[-1])


def report(out: Path, results: dict[str, TrainResult]) -> bool:
    """Print the table, a sample and where everything lies; whether Hope beats order 1."""
    corpus = prepare(DATA, out / "hope_tiny" / "data", length=LENGTH)
    windows = corpus.heldout_windows(length=LENGTH, limit=HELDOUT_WINDOWS)
    steps = results["hope_tiny"].steps
    CONSOLE.rule("held-out bits per byte")
    table = Table("model", "parameters", "tokens/s", "steps", "equal time", f"at step {steps}")
    for name, r in results.items():
        row = [
            f"{r.parameters:,}",
            f"{r.tokens / r.seconds:,.0f}",
            f"{r.steps:,}",
            f"{r.heldout_bits_per_byte:.3f}",
        ]
        table.add_row(name, *row, f"{held_out_at(r.folder, steps):.3f}")
    counted = {order: count_model(corpus.train, order).bits_per_byte(windows) for order in (1, 2)}
    for order, bits in counted.items():
        table.add_row(f"order-{order} byte counts", "", "", "", f"{bits:.3f}", "")
    CONSOLE.print(table)
    CONSOLE.print(
        f"{DATA}: {len(corpus.train):,} bytes to train on, {len(corpus.heldout):,} held out in "
        f"{corpus.heldout_files} of {corpus.files} files; judged on {windows[:, 1:].size:,} of them"
    )
    bits = results["hope_tiny"].heldout_bits_per_byte
    won = bits < counted[1]
    CONSOLE.print(
        f"Hope {'beats' if won else 'does NOT beat'} order-1 byte counts: {bits:.3f} against {counted[1]:.3f}"
    )
    sample(out / "hope_tiny")
    where(out)
    return won


def sample(run: Path) -> None:
    """Let the trained Hope write."""
    CONSOLE.rule("hope_tiny goes on from `def `")
    model = load_run(run).model
    text = PROMPT + bytes(generate(model, PROMPT, 240, Sampling(temperature=0.7, seed=SEED)))
    CONSOLE.print(text.decode("utf-8", "replace"), markup=False)


def where(out: Path) -> None:
    """Say where everything lies."""
    CONSOLE.rule("files")
    for name, what in (
        ("hope.svg", "the levels of Hope"),
        ("hope.html", "the same, to look into with a browser"),
        ("hope_tiny/loss.svg", "its loss"),
        ("hope_tiny/checkpoints", "its weights: `nldsl generate` reads them"),
        ("transformer/loss.svg", "the transformer's loss"),
        ("transformer/checkpoints", "its weights"),
    ):
        CONSOLE.print(f"{out / name!s:40} {what}")


if __name__ == "__main__":
    sys.exit(main())
