"""A model computes the same on every device: outputs, states, gradients, task writes, optimisers, sessions.

`far` stands in for an accelerator everywhere (see `far_device`); `cuda` is one, where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nldsl
from nldsl.evaluate import Sampling, Session, bits_per_byte, generate
from nldsl.runtime.state import State
from nldsl.train.groups import claim
from nldsl.train.loop import backward_from
from nldsl.train.optimisers import make_groups
from tests.conformance.far_device import NAME, MixedDevicesError, far_device

torch.set_num_threads(1)
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
TOKENS = 21
MODELS: dict[str, dict[str, Any]] = {
    "hope": {"chunks": [4, 8]},
    "hope_attention": {"chunks": [4, 8]},
    "transformer": {},
    "sliding_window_attention": {},
    "gated_deltanet": {},
    "gla": {},
    "kda": {},
    "rwkv7": {},
    "mesanet": {},
    "mamba": {},
    "titans_linear": {},
    "titans_mlp": {},
}
"""One of every way to compute, with the arguments that make it small."""
OFTEN = {"hope", "transformer", "gated_deltanet", "titans_mlp"}
EACH = [name if name in OFTEN else pytest.param(name, marks=pytest.mark.long) for name in MODELS]


@pytest.fixture(params=["far", pytest.param("cuda", marks=NO_CUDA)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    with far_device() if request.param == "far" else nullcontext():
        yield NAME if request.param == "far" else "cuda"


def small(name: str, **options: Any) -> Any:
    arguments = {"dim": 16, "depth": 1, **MODELS.get(name, {})}
    return nldsl.compile(name, dtype=torch.float64, **options, **arguments)


def tokens_of(batch: int = 2, length: int = TOKENS) -> Tensor:
    return torch.randint(0, 256, (batch, length), generator=torch.Generator().manual_seed(1))


def agree(here: Tensor, there: Tensor, what: str, limit: float = 1e-9) -> None:
    assert here.shape == there.shape, what
    error = (here.detach().double() - there.detach().to("cpu").double()).abs()
    assert not error.numel() or float(error.max()) <= limit, f"{what}: {float(error.max()):.2e}"


def same_states(here: State, there: State, device: str) -> None:
    found = there.tensors()
    assert found.keys() == here.tensors().keys()
    for path, tensor in here.tensors().items():
        assert found[path].device.type == device, path
        agree(tensor, found[path], path)


def same_gradients(here: nn.Module, there: nn.Module) -> None:
    others = dict(there.named_parameters())
    for name, p in here.named_parameters():
        assert (p.grad is None) == (others[name].grad is None), name
        if p.grad is not None:
            agree(p.grad, others[name].grad, name)


def test_the_far_device_tells_devices_apart() -> None:
    with far_device():
        far = torch.ones(2, device=NAME)
        assert float((far * torch.tensor(3.0)).sum()) == 6.0
        with pytest.raises(MixedDevicesError):
            far + torch.ones(2)
        with pytest.raises(RuntimeError):
            far.numpy()


@pytest.mark.parametrize("name", EACH)
def test_outputs_states_and_gradients(name: str, device: str) -> None:
    here, there = small(name), small(name, device=device)
    tokens = tokens_of()
    mask = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(2)) > 0.3
    weights = torch.randn(2, TOKENS, 256, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for cut, seen in ((TOKENS, None), (6, None), (9, mask)):
        answers = []
        for model, place in ((here, "cpu"), (there, device)):
            rows, state = [], None
            for part in (slice(0, cut), slice(cut, TOKENS)):
                live = None if seen is None else seen[:, part].to(place)
                if tokens[:, part].shape[1]:
                    y, state = model(tokens[:, part].to(place), state, live)
                    rows.append(y)
            y = torch.cat(rows, 1)
            model.zero_grad()
            (y * weights.to(place)).sum().backward()
            answers.append((y, state))
        agree(answers[0][0], answers[1][0], "logits")
        same_states(answers[0][1], answers[1][1], device)
        same_gradients(here, there)


@pytest.mark.parametrize("name", ["hope", "hope_attention"])
@pytest.mark.parametrize("backward", [0.0, 0.5])
def test_task_writes(name: str, backward: float, device: str) -> None:
    here, there = small(name), small(name, device=device)
    tokens, found = tokens_of(length=2 * TOKENS), []
    for model, place in ((here, "cpu"), (there, device)):
        model.zero_grad()
        first, state = model.learn(tokens[:, :TOKENS].to(place), backward=backward)
        second, state = model.learn(tokens[:, TOKENS:].to(place), state, backward=backward)
        if not backward:
            (first + second).backward()
        y, state = model(tokens[:, :3].to(place), state)
        found.append((first, second, y, state))
    for x, z in zip(found[0][:3], found[1][:3], strict=True):
        agree(x, z, "answer")
    same_states(found[0][3], found[1][3], device)
    same_gradients(here, there)


@pytest.mark.parametrize("name", ["hope", "transformer"])
def test_a_model_and_its_state_move(name: str, device: str, tmp_path: Path) -> None:
    here, tokens = small(name), tokens_of()
    _, state = here.learn(tokens[:, :9])
    want, after = here(tokens[:, 9:], state)
    # By hand, and through a file.
    state.save(tmp_path / "state")
    here.to(device)
    for moved in (state.to(device), here.load_state(tmp_path / "state")):
        got, there = here(tokens[:, 9:].to(device), moved)
        agree(want, got, "logits")
        same_states(after, there, device)
    there.save(tmp_path / "there")
    here.to("cpu")
    same_states(after, here.load_state(tmp_path / "there"), "cpu")


@pytest.mark.parametrize("name", ["hope", "transformer"])
def test_sessions_and_generation(name: str, device: str, tmp_path: Path) -> None:
    here, there = small(name), small(name, device=device)
    greedy, drawn = Sampling(temperature=0), Sampling(seed=5)
    for sampling in (greedy, drawn):
        want = list(generate(here, b"once upon", 6, sampling))
        assert list(generate(there, b"once upon", 6, sampling)) == want
    near, far = Session(here, learn=True), Session(there, learn=True)
    agree(near.feed("a first line, and more"), far.feed("a first line, and more"), "logits")
    far.save(tmp_path / "live")
    assert list(far.fork().generate(4, greedy)) == list(near.generate(4, greedy))
    again = Session(there).load(tmp_path / "live")
    assert list(again.generate(4, greedy)) == list(far.generate(4, greedy))
    both = far.merge(again)
    assert both.feed(b"x").shape[0] == 2
    assert [one.batch for one in both.split()] == [1, 1]


def test_held_out_text(device: str) -> None:
    windows = tokens_of(3, 12).numpy().astype("int16")
    windows[1, 9:] = -1
    for name in ("hope", "transformer"):
        want, got = (bits_per_byte(small(name, device=d), windows, batch=2) for d in ("cpu", device))
        assert got == pytest.approx(want, rel=1e-9)


class Three(nn.Module):
    """A matrix that gets rows of inputs, a stack, a vector; large enough for a loop in C."""

    def __init__(self, device: str) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(7)
        self.layer = nn.Linear(320, 200, bias=False, dtype=torch.float64)
        self.stack = nn.Parameter(torch.randn(3, 20, 12, dtype=torch.float64, generator=source))
        self.vector = nn.Parameter(torch.randn(3000, dtype=torch.float64, generator=source))
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(200, 320, dtype=torch.float64, generator=source) / 16)
        self.to(device)

    def loss(self, x: Tensor) -> Tensor:
        return self.layer(x).tanh().pow(2).sum() + self.stack.sin().sum() + (self.vector**2).sum()


@pytest.mark.parametrize(
    "rule",
    [
        "adamw",
        "m3",
        "dgd",
        *(pytest.param(rule, marks=pytest.mark.long) for rule in ("muon", "shampoo", "adafactor")),
    ],
)
def test_optimisers(rule: str, device: str) -> None:
    x = torch.randn(5, 320, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    found: list[Any] = []
    for place in ("cpu", device):
        model = Three(place)
        matrices = rule in ("muon", "m3", "shampoo", "adafactor")
        weights = {
            n: p
            for n, p in model.named_parameters()
            if not (matrices and n == "vector") and not (rule == "dgd" and n != "layer.weight")
        }
        made = nldsl.optimizer(rule, list(weights.items()), module=model, lr=1e-2)
        for _ in range(3):
            made.zero_grad()
            model.loss(x.to(place)).backward()
            made.step()
        found.append((weights, made))
    (near, first), (far, second) = found
    for name in near:
        agree(near[name], far[name], name)
        for memory, kept in second.state[far[name]].items():
            # An inverse root multiplies rounding by a power of its ridge.
            agree(first.state[near[name]][memory], kept, f"{name}: {memory}", 1e-7)
    assert all(
        "is on" in why or "are on" in why or form != "compiled" for form, why in second.forms().values()
    )
    # Memories cross with `load_state_dict`, as those of torch do.
    first.load_state_dict(second.state_dict())
    for p in near.values():
        for memory, kept in first.state[p].items():
            assert kept.device.type == "cpu", memory


def test_some_steps_of_training(device: str) -> None:
    """Hope with the groups of its `train` section: the losses of the steps are those on the CPU."""
    losses = []
    for place in ("cpu", device):
        model = small("hope", device=place)
        groups = make_groups(
            claim(model.program.train, model.parameter_paths(), model.parameter_roles()), model
        )
        tokens, seen = tokens_of(2, 18).to(place), []
        for step in range(3):
            model.zero_grad()
            seen.append(backward_from(model, tokens, None, 0)[0])
            for group in groups:
                group.step(step, 0.0)
        losses.append(seen)
    assert losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-8)


@pytest.mark.parametrize("place", ["cpu", pytest.param("cuda", marks=NO_CUDA)])
@pytest.mark.parametrize("name", EACH)
def test_lower_precisions(name: str, place: str) -> None:
    """float32, bfloat16 as the type of the weights, and autocast: near float64, with gradients."""
    arguments = {"dim": 64, "depth": 1, **MODELS[name]}
    exact, tokens = nldsl.compile(name, dtype=torch.float64, **arguments), tokens_of(2, 40)
    want, _ = exact(tokens)
    want.pow(2).mean().backward()
    want = want.detach()
    plain = {"device": place, **arguments}
    for kind, cast, limit in (
        (torch.float32, nullcontext(), 1e-3),
        (torch.float32, torch.autocast(place, torch.bfloat16), 0.5),
        (torch.bfloat16, nullcontext(), 1.0),
    ):
        model = nldsl.compile(name, dtype=kind, **plain)
        with cast:
            logits, state = model(tokens.to(place))
        assert logits.dtype == kind
        assert all(
            x.dtype in (kind, torch.float32) for x in state.tensors().values() if x.is_floating_point()
        )
        agree(want, logits.double(), f"{kind}", limit)
        logits.float().pow(2).mean().backward()
        for (path, p), q in zip(model.named_parameters(), exact.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), path
            if q.grad is not None:
                away = (p.grad.double().cpu() - q.grad).norm() / q.grad.norm().clamp_min(1e-12)
                assert float(away) < limit, f"{path} in {kind}: {float(away):.2e}"


@NO_CUDA
@pytest.mark.parametrize("name", EACH)
def test_tf32(name: str) -> None:
    """TF32 has ten bits: memories that invert a matrix lose some of them, and stay bounded."""
    arguments, tokens = {"dim": 64, "depth": 1, **MODELS[name]}, tokens_of(2, 64)
    want = nldsl.compile(name, dtype=torch.float64, **arguments)(tokens)[0]
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        agree(want, nldsl.compile(name, device="cuda", **arguments)(tokens.cuda())[0].double(), "TF32", 0.5)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@NO_CUDA
@pytest.mark.parametrize("name", ["gated_deltanet", "transformer"])
def test_torch_compile_on_cuda(name: str) -> None:
    model, tokens = small(name, device="cuda"), tokens_of().cuda()
    want = model(tokens)[0]
    got = torch.compile(model)(tokens)[0]
    agree(want.cpu(), got, "compiled")
