"""Decoding without end: time of a token, peak of memory and bytes of state, from the first token to the last.

    python -m benchmarks.decode [--tokens 1000000] [--model hope_tiny] [--block 1] [--minutes 8] [--again]
    python -m benchmarks.decode --rates

A session draws tokens and reads them, one by one; with `--block N` it reads given ones, N at a time, as a
stream would bring them.  After `--minutes` it stops and keeps its state in `build/`; the same command goes
on from there (`--again` begins anew).  Of every tenth part: CPU time of a token, the peak of resident memory
of the process in that part, bytes of the state.  Table and plot go to `build/`.

`--rates`: CPU time of a step, one token of every sequence, at batch 1 and 16, of `hope_tiny` and of `hope`
with two layers of 256, the best of the rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import nldsl
from benchmarks.lengths import status
from benchmarks.loglog import loglog
from benchmarks.measure import aligned, heading, machine, needs_linux, rule
from nldsl.evaluate import Sampling, Session

OUT = Path("build/decode")
PARTS, VOCAB = 10, 256
MODELS = {"hope_tiny": {}, "hope": {"dim": 256, "depth": 2, "heads": 4}}


@dataclass(frozen=True)
class Part:
    """A tenth of the tokens: how many are behind it, and what it took."""

    tokens: int
    microseconds: float
    peak_mib: float
    state_kib: float


def stream(session: Session, count: int, block: int, seed: int) -> None:
    """`count` more tokens: drawn one by one, or given in blocks."""
    if block == 1:
        for _ in session.generate(count, Sampling(seed=seed)):
            pass
        return
    source = torch.Generator().manual_seed(seed)
    given = torch.randint(VOCAB, (1, count), generator=source)
    for piece in given.split(block, 1):
        session.feed(piece)


def parts(session: Session, total: int, block: int, done: list[Part], until: float) -> Iterator[Part]:
    """The tenths that are left, as long as there is time."""
    each = total // PARTS
    for number in range(len(done), PARTS):
        if time.monotonic() > until:
            return
        Path("/proc/self/clear_refs").write_text("5")
        started = time.process_time()
        stream(session, each, block, number)
        spent = time.process_time() - started
        behind = each * (number + 1)
        yield Part(behind, 1e6 * spent / each, status("VmHWM") / 1024, session.bytes / 1024)


def table(done: list[Part]) -> str:
    widths = [9, 12, 9, 10]
    rows = [aligned(["tokens", "us per token", "peak, MiB", "state, KiB"], widths, 0), rule(widths, 0)]
    for p in done:
        cells = [f"{p.tokens:,}", f"{p.microseconds:.0f}", f"{p.peak_mib:.1f}", f"{p.state_kib:.1f}"]
        rows.append(aligned(cells, widths, 0))
    return "\n".join(rows) + "\n"


def endless(options: argparse.Namespace) -> None:
    """Go on where the last call stopped; print every part."""
    out = options.out
    kept, notes = out.with_suffix(".safetensors"), out.with_suffix(".json")
    asked = {"model": options.model, "tokens": options.tokens, "block": options.block}
    session = Session(nldsl.compile(options.model, **MODELS[options.model]))
    done: list[Part] = []
    known = json.loads(notes.read_text()) if notes.exists() and not options.again else {}
    if known.get("asked") == asked:
        done = [Part(**p) for p in known["parts"]]
        session.load(kept)
    asked_for = "given" if options.block > 1 else "drawn one by one"
    print(f"{options.model}, {options.tokens:,} tokens, {asked_for}", flush=True)
    if done:
        print(f"{len(done)} of {PARTS} parts are of an earlier call; --again begins anew")
    print(table(done), end="", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    for part in parts(session, options.tokens, options.block, done, time.monotonic() + 60 * options.minutes):
        done.append(part)
        print(table([part]).splitlines()[-1], flush=True)
        session.save(kept)
        notes.write_text(json.dumps({"asked": asked, "parts": [asdict(p) for p in done]}), encoding="utf-8")
    if not done:
        print(f"no part of {options.tokens // PARTS} tokens within {options.minutes:g} minutes")
        return
    out.with_suffix(".md").write_text(table(done), encoding="utf-8")
    curves = {
        "microseconds per token": {options.model: [(p.tokens, p.microseconds) for p in done]},
        "peak memory, MiB": {options.model: [(p.tokens, p.peak_mib) for p in done]},
    }
    picture = loglog(curves, "tokens behind", machine())
    out.with_suffix(".svg").write_text(picture, encoding="utf-8")
    print(f"{len(done)} of {PARTS} parts; wrote {out}.md and {out}.svg")


@torch.no_grad()
def rates(rounds: int, tokens: int = 64) -> None:
    """The best run of some tokens one by one."""
    widths = [9, 5, 11]
    print(aligned(["model", "batch", "us per step"], widths), rule(widths), sep="\n")
    for name, sizes in MODELS.items():
        model = nldsl.compile(name, **sizes)
        for batch in (1, 16):
            session = Session(model, batch=batch)
            given = torch.randint(VOCAB, (batch, tokens))
            session.feed(given)
            best = float("inf")
            for _ in range(rounds):
                started = time.process_time()
                for piece in given.split(1, 1):
                    session.feed(piece)
                best = min(best, (time.process_time() - started) / tokens)
            print(aligned([name, str(batch), f"{1e6 * best:.0f}"], widths), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--model", choices=sorted(MODELS), default="hope_tiny")
    parser.add_argument("--block", type=int, default=1, help="tokens given at once; 1: drawn one by one")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--again", action="store_true", help="begin anew")
    parser.add_argument("--rates", action="store_true", help="instead: one token, of two models")
    parser.add_argument("--rounds", type=int, default=4, help="of --rates")
    parser.add_argument("--out", type=Path, default=OUT, help="where table and plot go, without a suffix")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heading(__doc__)
    if options.rates:
        rates(options.rounds)
    else:
        needs_linux()
        endless(options)


if __name__ == "__main__":
    main()
