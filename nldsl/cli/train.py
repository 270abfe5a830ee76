"""`nldsl train SPEC`: train a model on bytes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nldsl.cli.common import SetOption, err, parse_settings, print_json

if TYPE_CHECKING:
    from nldsl.train import TrainResult

Data = Annotated[
    str,
    typer.Option(
        help="A file, a folder of texts or of `nldsl data prepare`, or `python-stdlib`: Python's own library."
    ),
]
Minutes = Annotated[float, typer.Option(min=0, help="Stop after so many minutes of training in all.")]
Accumulate = Annotated[int, typer.Option(min=1, help="Batches whose gradients a step sums.")]
Spike = Annotated[
    float, typer.Option(min=0, help="A gradient norm so many times the usual one is a fault; 0: never.")
]
OnFault = Annotated[
    str, typer.Option(help="At a spike, NaN or infinity: `stop` (saved, and said where) or `skip` the step.")
]
Stream = Annotated[
    bool, typer.Option("--stream", help="Rows read on from step to step and hand their state on.")
]
Parallel = Annotated[
    str,
    typer.Option(help="Under torchrun: `ddp`, `fsdp`, or `auto`: ddp where there are several processes."),
]
Backend = Annotated[str, typer.Option(help="Of processes: `gloo`, `nccl`, or `auto`: by the device.")]
AsyncSave = Annotated[
    bool, typer.Option("--async-save", help="Processes write checkpoints while training goes on.")
]
Device = Annotated[str, typer.Option(help="Where the model is: `cpu`, `cuda`, `cuda:1`, ...")]
Precision = Annotated[
    str, typer.Option(help="Of products with weights, and attention: `float32` or `bfloat16`.")
]
Recompute = Annotated[
    str, typer.Option(help="`blocks`: computed again in the backward pass, for less memory; or `none`.")
]
Compile = Annotated[
    str,
    typer.Option(
        "--compile",
        help="torch.compile: `auto` where `nldsl plan` says it pays, `yes` wherever it can, or `no`; "
        "`native`: chunks of memories in C.",
    ),
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write what is logged for TensorBoard too.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")]
Keep = Annotated[int, typer.Option(min=1, help="Checkpoints that are kept.")]


def command(
    spec: Annotated[str, typer.Argument(help="A library name or a file.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the run: log, plot, checkpoints.")],
    data: Data = "python-stdlib",
    steps: Annotated[int, typer.Option(min=0, help="Stop after so many steps in all.")] = 0,
    minutes: Minutes = 0.0,
    batch: Annotated[int, typer.Option(min=1, help="Windows per step.")] = 16,
    length: Annotated[int, typer.Option(min=2, help="Bytes predicted per window.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of initial values and of the order of the data.")] = 0,
    settings: SetOption = None,
    resume: Resume = False,
    threads: Annotated[int, typer.Option(min=0, help="Threads of torch; 0 leaves it to torch.")] = 0,
    accumulate: Accumulate = 1,
    spike: Spike = 0.0,
    on_fault: OnFault = "stop",
    stream: Stream = False,
    keep: Keep = 3,
    precision: Precision = "float32",
    recompute: Recompute = "none",
    compiled: Compile = "no",
    tensorboard: TensorBoard = False,
    device: Device = "cpu",
    parallel: Parallel = "auto",
    backend: Backend = "auto",
    async_save: AsyncSave = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model on bytes, tokens or labels: either --steps or --minutes.

    Ctrl-C and SIGTERM save a checkpoint; --resume goes on from it, bit for bit on a CPU.
    """
    from nldsl.runtime.allocator import keep_freed_memory
    from nldsl.train import join, train

    keep_freed_memory()
    engine = join(parallel, backend=backend, device=device, async_save=async_save)
    size: dict[str, Any] = {
        "steps": steps,
        "minutes": minutes,
        "batch": batch,
        "length": length,
        "seed": seed,
    }
    how: dict[str, Any] = {"resume": resume, "threads": threads, "accumulate": accumulate, "spike": spike}
    how |= {"on_fault": on_fault, "stream": stream, "keep": keep, "engine": engine}
    how |= {"precision": precision, "recompute": recompute, "compiled": compiled, "tensorboard": tensorboard}
    result = train(spec, out=out, data=data, arguments=parse_settings(settings), **size, **how)
    if engine.first:
        _report(result, as_json)


def _report(result: TrainResult, as_json: bool) -> None:
    """What came of it, said by the first process."""
    if as_json:
        print_json(asdict(result) | {"folder": str(result.folder)})
        return
    err().print(f"wrote {result.folder}: run.json, log.jsonl, loss.svg, checkpoints/")
    right = result.heldout_accuracy
    said = "byte held out" if right is None else f"label held out, {right:.1%} right,"
    print(
        f"{result.heldout_bits_per_byte:.4f} bits per {said} after {result.steps} steps, "
        f"{result.tokens:,} tokens, {result.seconds:.1f} s"
    )
