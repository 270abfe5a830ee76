"""Optimizers at 10.5 M parameters on one thread: element-wise rules, Muon and M3, time and memory.

    python -m benchmarks.optimizers [--rounds N]

24 matrices of 512 x 512, 4 of 512 x 2048 and 60 vectors of 512.  Times are process CPU time of a step, the
best of interleaved rounds; `x` is the ratio to the first row.
Gradients are as they stand, or written anew before every step, those of the last weights first, as a backward
pass does it; to write them is not counted.  Or a real backward pass makes them, and its time stands beside.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

import nldsl
from benchmarks.measure import best_seconds, heading
from nldsl.runtime import native
from nldsl.runtime.newton_schulz import orthogonalize
from nldsl.runtime.rule_gradients import EXPONENT, FINITE

ROUNDS = 12
ELEMENTWISE_ROUNDS = 30
"""A step of these takes a few milliseconds, as long as what disturbs it."""
BACKWARD_ROUNDS, WARM = 100, 3
ROWS = 32
"""Of the batch of a real backward pass: few, for what is looked for is small beside it."""
MATRICES = 6
"""How many of the matrices Muon and M3 are timed on; their cost is one product after the other."""
USER_RULE = """rule mine(lr, beta = 0.9, mix = 0.3) {
  memory m = like(W)
  m = beta * m + (1 - beta) * g
  W = W - lr * (mix * sign(m) + (1 - mix) * m)
}
"""
BY_HAND = """int step(long tensors, const long *sizes, void ***arrays, const double *numbers, int threads) {
  const real lr = numbers[0], beta = numbers[1], mix = numbers[2];
  for (long t = 0; t < tensors; t++) {
    real *restrict W = arrays[t][0], *restrict g = arrays[t][1], *restrict m = arrays[t][2];
#pragma omp simd
    for (long i = 0; i < sizes[t]; i++) {
      m[i] = beta * m[i] + (1 - beta) * g[i];
      W[i] -= lr * (mix * ((m[i] > 0) - (m[i] < 0)) + (1 - mix) * m[i]);
    }
  }
  return 0;
}
"""


def parameters() -> list[nn.Parameter]:
    """The weights, with gradients."""
    torch.manual_seed(0)
    shapes = [(512, 512)] * 24 + [(512, 2048)] * 4 + [(512,)] * 60
    made = [nn.Parameter(torch.randn(shape) * 0.02) for shape in shapes]
    for p in made:
        p.grad = torch.randn_like(p) * 0.01
    return made


def matrices() -> list[nn.Parameter]:
    return parameters()[:MATRICES]


def ours(rule: str, weights: list[nn.Parameter], policy: str = "ignore") -> Callable[[], object]:
    return nldsl.optimizer(rule, weights, nonfinite=policy).step


LOOK_BY_HAND = """
int step(long tensors, const long *sizes, void ***arrays, const double *numbers, int threads) {
  unsigned bad = 0;
  for (long t = 0; t < tensors; t++) {
    const unsigned *restrict g = arrays[t][1];
#pragma omp simd reduction(| : bad)
    for (long i = 0; i < sizes[t]; i++) bad |= (g[i] & 0x7f800000u) == 0x7f800000u;
  }
  return bad;
}
"""


def checked_by_torch(weights: list[nn.Parameter]) -> Callable[[], object]:
    """Torch's fused step where no gradient may be NaN or infinite, as torch itself can ask that."""
    step = torch.optim.AdamW(weights, 1e-3, fused=True).step

    def checked() -> None:
        gradients = [p.grad for p in weights if p.grad is not None]
        nn.utils.get_total_norm(gradients, error_if_nonfinite=True)
        step()

    return checked


def by_hand(weights: list[nn.Parameter], look: bool = False) -> Callable[[], object]:
    """The user's rule as somebody would write it in C for these arrays, behind a look or without."""
    loop, looking = native.compiled(BY_HAND, "float"), native.compiled(LOOK_BY_HAND, "float")
    assert loop is not None and looking is not None, "the benchmark needs a C compiler"
    numbers = (ctypes.c_double * 3)(1e-3, 0.9, 0.3)
    kept = [torch.zeros_like(p) for p in weights]
    sizes = (ctypes.c_long * len(weights))(*(p.numel() for p in weights))

    def step() -> None:
        rows = []
        for p, m in zip(weights, kept, strict=True):
            assert p.grad is not None
            rows.append((ctypes.c_void_p * 3)(p.data_ptr(), p.grad.data_ptr(), m.data_ptr()))
        arrays = (ctypes.c_void_p * len(rows))(*map(ctypes.addressof, rows))
        if look and looking(len(rows), sizes, arrays, numbers, 1):
            raise FloatingPointError("a gradient is not finite")
        loop(len(rows), sizes, arrays, numbers, torch.get_num_threads())

    return step


class LiteralM3:
    """Algorithm 1 line by line in torch, both orthogonalisations at every step, in float32."""

    def __init__(self, weights: list[nn.Parameter], slow: int = 10) -> None:
        self.weights, self.slow, self.count = weights, slow, 0
        self.kept = [[torch.zeros_like(p) for _ in range(4)] for p in weights]

    @torch.no_grad()
    def step(self) -> None:
        self.count += 1
        for p, (m1, m2, v, gathered) in zip(self.weights, self.kept, strict=True):
            assert p.grad is not None
            m1.add_(0.95 * p.grad)
            v.add_(0.95 * p.grad**2)
            direction = newton_schulz(m1) + 0.5 * newton_schulz(m2)
            p.sub_(1e-3 * direction / (v.sqrt() + 1e-8))
            gathered.add_(p.grad)
            if self.count % self.slow == 0:
                m2.add_(0.95 * gathered)
                gathered.zero_()


def newton_schulz(a: Tensor) -> Tensor:
    x = a / (a.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def bare(weights: list[nn.Parameter]) -> Callable[[], object]:
    """Nothing but the products of Muon."""
    return lambda: [orthogonalize(p.detach(), iterations=5) for p in weights]


def writing(weights: list[nn.Parameter]) -> Callable[[], object]:
    """New gradients for all of them, from the last to the first."""
    drawn = [p.grad.clone() for p in weights if p.grad is not None]

    def write() -> None:
        for p, g in zip(reversed(weights), reversed(drawn), strict=True):
            p.grad = None
            p.grad = g.clone()

    return write


class Deep(nn.Module):
    """A residual net of the same weights: 24 layers of 512, 4 of them with 512 x 2048 x 512 behind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(512, 512) for _ in range(24))
        self.norms = nn.ModuleList(nn.LayerNorm(512) for _ in range(18))
        self.wide = nn.ModuleList(nn.Linear(512, 2048, bias=False) for _ in range(2))
        self.narrow = nn.ModuleList(nn.Linear(2048, 512, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            y = self.norms[index](x) if index < len(self.norms) else x
            x = x + torch.relu(layer(y))
            if index % 12 == 0:
                x = x + self.narrow[index // 12](torch.relu(self.wide[index // 12](x)))
        return x


def hooked(weights: list[nn.Parameter]) -> list[nn.Parameter]:
    """Hooks look at the gradient of every matrix where the backward pass has just made it."""
    unsigned, mask = EXPONENT[torch.float32]
    loop = native.compiled(FINITE.replace("MASK", mask), unsigned)
    assert loop is not None, "the benchmark needs a C compiler"
    where = (ctypes.c_void_p * 1)()

    def watch(p: nn.Parameter) -> None:
        size = (ctypes.c_long * 1)(p.numel())

        def look(p: Tensor) -> None:
            assert p.grad is not None
            where[0] = p.grad.data_ptr()
            assert loop(1, size, where, None, 1) == 0

        p.register_post_accumulate_grad_hook(look)

    for p in weights:
        if p.ndim > 1:
            watch(p)
    return weights


def after_backward(rounds: int) -> None:
    """Backward pass and step in turn: medians of CPU time, and of what a round takes longer than torch's."""
    rule, rows = "adamw(lr = 1e-5)", torch.randn(ROWS, 512)
    nets = [Deep() for _ in range(4)]
    torchs, plain, bare_, early = (list(net.parameters()) for net in nets)
    cases = {
        "torch AdamW(fused=True)": torch.optim.AdamW(torchs, 1e-5, fused=True).step,
        "adamw": ours(rule, plain, "raise"),
        "adamw, gradients not looked at": ours(rule, bare_),
        "adamw, looked at by hooks in the backward pass": ours(rule, hooked(early)),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(WARM + rounds):
        for net, (name, step) in zip(nets, cases.items(), strict=True):
            net.zero_grad()
            loss = net(rows).square().mean()
            begin = time.process_time()
            loss.backward()
            between = time.process_time()
            step()
            taken[name].append((between - begin, time.process_time() - between))
    first = taken[next(iter(cases))][WARM:]
    print("\nafter a real backward pass: backward, step, and both above torch's (medians of rounds)")
    for name, found in taken.items():
        backward, step = (1e3 * median(part) for part in zip(*found[WARM:], strict=True))
        more = 1e3 * median(sum(a) - sum(b) for a, b in zip(found[WARM:], first, strict=True))
        print(f"  {name:<48} {backward:6.2f} ms  {step:5.2f} ms  {more:+5.2f} ms")


def show(
    title: str,
    cases: dict[str, Callable[[], object]],
    base: str,
    rounds: int,
    before: dict[str, Callable[[], object]] | None = None,
) -> None:
    """A table of one comparison, relative to `base`."""
    found = best_seconds(cases, rounds, before)
    print(f"\n{title}")
    for name, seconds in found.items():
        print(f"  {name:<44} {1e3 * seconds:8.2f} ms  {seconds / found[base]:5.2f} x", flush=True)


def memory() -> None:
    """Bytes of state beside what the rule itself keeps."""
    print("\nstate, as a share of what the rule keeps")
    for rule, slots in (("adamw(lr = 1e-3)", 2), ("lion(lr = 1e-3)", 1), ("m3(lr = 1e-3)", 4)):
        weights = matrices()
        optimizer = nldsl.optimizer(rule, weights)
        held = sum(t.numel() * t.element_size() for s in optimizer.state.values() for t in s.values())
        print(f"  {rule:<44} {held / (4 * slots * sum(p.numel() for p in weights)):.4f}")


def resident(field: str) -> int:
    """Bytes of this process that are in memory: `VmRSS` now, `VmHWM` at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def peak_of_a_step(rule: str, passes: int) -> None:
    """Print bytes a parameter at the peak of one step: weights, gradients, state and whatever else is needed.

    Ten linear layers of 1024 x 1024 and 64 rows; forward, backward and the step, the third of three.
    """
    torch.set_num_threads(1)
    steps(rule, 300, 1, passes)  # imports, and what is compiled
    before = resident("VmRSS")
    print((steps(rule, 1024, 10, passes) - before) / (10 * 1024 * 1024))


def steps(rule: str, size: int, depth: int, passes: int) -> int:
    """Bytes of this process at the peak of the third step, of so many passes forward and backward."""
    rows = torch.randn(64, size)
    net = nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(depth)))
    optimizer = nldsl.optimizer(rule, net)
    optimizer.several_passes = passes > 1
    for _ in range(3):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # a new peak from here on
        optimizer.zero_grad()
        for _ in range(passes):
            net(rows).square().mean().backward()
        optimizer.step()
    return resident("VmHWM")


def peaks() -> None:
    """The peak of a step of each rule, in a process of its own."""
    if not Path("/proc/self/clear_refs").exists():
        print("\npeaks of memory are left out: they come from /proc, which Linux has")
        return
    print("\nbytes a parameter at the peak of a step: 4 of weights, 4 of gradients, the state and the rest")
    for name, passes in (("sgd", 1), ("dgd", 1), ("dgd", 2), ("dgd_momentum", 1), ("adamw", 1)):
        rule = f"{name}(lr = 1e-3)"
        command = [sys.executable, "-m", "benchmarks.optimizers", "--peak", rule, str(passes)]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"  {rule + ', two passes' * (passes - 1):<44} {float(found):.1f}")


def elementwise(rounds: int) -> None:
    """Rules whose elements do not see one another, under every policy about gradients that are not finite."""
    weights = parameters()
    count = sum(p.numel() for p in weights)
    print(f"{count / 1e6:.1f} M parameters in {len(weights)} tensors, one thread, CPU time")
    given = {
        "torch AdamW(fused=True)": (weights, torch.optim.AdamW(weights, 1e-3, fused=True).step),
        "the same, behind torch's check of gradients": (w := parameters(), checked_by_torch(w)),
        "torch AdamW(foreach=True)": (w := parameters(), torch.optim.AdamW(w, 1e-3, foreach=True).step),
        "adamw": (w := parameters(), ours("adamw(lr = 1e-3)", w, "raise")),
        "adamw, what is not finite taken as zero": (w := parameters(), ours("adamw(lr = 1e-3)", w, "zero")),
        "adamw, gradients not looked at": (w := parameters(), ours("adamw(lr = 1e-3)", w)),
        "lion": (w := parameters(), ours("lion(lr = 1e-3)", w, "raise")),
        "schedule_free": (w := parameters(), ours("schedule_free(lr = 1e-3)", w, "raise")),
    }
    own = {
        "the loop written by hand": (w := parameters(), by_hand(w)),
        "the same behind a look written by hand": (w := parameters(), by_hand(w, look=True)),
        "the rule": (w := parameters(), mine(w, "raise")),
        "the rule, what is not finite taken as zero": (w := parameters(), mine(w, "zero")),
        "the rule, gradients not looked at": (w := parameters(), mine(w, "ignore")),
    }
    for title, table in (("element-wise", given), ("a rule of one's own", own)):
        steps = {name: step for name, (_, step) in table.items()}
        base = next(iter(steps))
        before = {name: writing(members) for name, (members, _) in table.items()}
        show(title, steps, base, rounds)
        show(f"{title}, gradients written anew", steps, base, rounds, before)


def mine(weights: list[nn.Parameter], policy: str) -> Callable[[], object]:
    return nldsl.optimizer(USER_RULE, weights, lr=1e-3, nonfinite=policy).step


def main() -> None:
    """Print every comparison, or the peak of one rule."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, help="of every comparison; each has its own number otherwise")
    parser.add_argument("--peak", nargs=2, metavar=("RULE", "PASSES"), help="of one step of a rule alone")
    options = parser.parse_args()
    if options.peak:
        peak_of_a_step(options.peak[0], int(options.peak[1]))
        return
    torch.set_num_threads(1)
    heading(__doc__)
    elementwise(options.rounds or ELEMENTWISE_ROUNDS)
    after_backward(options.rounds or BACKWARD_ROUNDS)
    show(
        f"matrix-wise, {MATRICES} matrices of 512 x 512",
        {
            "the products of Muon alone": bare(matrices()),
            "torch.optim.Muon": torch.optim.Muon(matrices(), 1e-3).step,
            "muon": ours("muon(lr = 1e-3)", matrices()),
            "m3": ours("m3(lr = 1e-3)", matrices()),
            "M3 written literally": LiteralM3(matrices()).step,
        },
        "the products of Muon alone",
        options.rounds or ROUNDS,
    )
    memory()
    peaks()


if __name__ == "__main__":
    main()
