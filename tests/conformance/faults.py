"""Seeded faults: precise edits of emitted source, and of lowering functions while they emit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

from nldsl.certify.bench import Build
from nldsl.certify.clocks import ClockSet, with_clocks
from nldsl.certify.examine import Subject, prepare
from nldsl.driver.compile import emit
from nldsl.emit.loader import load_module
from nldsl.graph import open_program
from nldsl.lowerings import attention, chunk_family, recurrence, states, token_memory
from nldsl.plan.plan import Plan, Target
from nldsl.runtime import grid, held_back, held_live, held_walk, segments
from nldsl.runtime.model import Layer
from tests.conformance.fault_makers import (
    always_committed,
    committed_of,
    counted_backward,
    emptied_everywhere,
    faded_to_nothing,
    last_pending,
    nothing_waits,
    running_of,
    silent_seeds,
)
from tests.conformance.fault_programs import COMMIT, HELD, LIVE, STEPS

SMALL = {"dim": 8, "depth": 1, "heads": 2, "vocab": 16}
PROGRAMS: dict[str, tuple[str, dict[str, Any], ClockSet]] = {
    "hope": ("hope", SMALL, ClockSet("test", ((16, 2), (64, 4)), ((16, 2), (64, 4), (256, 8)))),
    "gated_deltanet": ("gated_deltanet", {**SMALL, "expand": 2}, ClockSet("test")),
    "linear_attention": ("linear_attention", {**SMALL, "expand": 2}, ClockSet("test")),
    "transformer": ("transformer", {**SMALL, "expand": 2, "window": 8}, ClockSet("test")),
    "steps": (STEPS, {"dim": 8}, ClockSet("test")),
    "held": (HELD, {"dim": 8}, ClockSet("test")),
    "live": (LIVE, {"dim": 8}, ClockSet("test")),
    "commit": (COMMIT, {"dim": 8}, ClockSet("test")),
}


@cache
def subject(program: str) -> Subject:
    """The small program with what the interpreter says about it."""
    source, arguments, clocks = PROGRAMS[program]
    small = with_clocks(open_program(source, **arguments), clocks)
    return prepare(small, clocks, 0, lambda _: None, both=False)


@dataclass(frozen=True)
class Edit:
    """`old` becomes `new` in the emitted source of a program, at its first place (or everywhere)."""

    label: str
    program: str
    old: str
    new: str
    everywhere: bool = False

    def build(self) -> Build:
        """A compiler with this fault; it says so if the edit does not apply."""

        def built(plan: Plan) -> Layer:
            text = emit(plan)
            # The other forms of a program are emitted as they are: the fault sits in its own form.
            if plan.target == Target():
                assert self.old in text, f"{self.label}: the emitted source does not contain {self.old!r}"
                text = text.replace(self.old, self.new, -1 if self.everywhere else 1)
            return _loaded(text)

        return built


@dataclass(frozen=True)
class Patch:
    """A lowering (or runtime) function is exchanged while code is emitted (or run)."""

    label: str
    program: str
    owner: Any
    attribute: str
    make: Callable[[Any], Any]

    def build(self) -> Build:
        """A compiler with this fault; it says so if the source is the same as without it."""

        def built(plan: Plan) -> Layer:
            plain = emit(plan)
            with self.applied():
                text = emit(plan)
            assert text != plain, f"{self.label}: the fault changes nothing"
            return _loaded(text)

        return built

    @contextmanager
    def applied(self) -> Iterator[None]:
        """With the function exchanged."""
        original = getattr(self.owner, self.attribute)
        with mock.patch.object(self.owner, self.attribute, self.make(original)):
            yield


def _loaded(text: str) -> Layer:
    module: Layer = load_module(text, "faulty").build(0)
    return module


EDITS = (
    # self-referential chunks
    Edit("sign of dy", "hope", "neg = -target", "neg = target"),
    Edit(
        "grid off by one",
        "hope",
        'ChunkGrid(state["M"]["count"], mask, x.shape[1], 4)',
        'ChunkGrid(state["M"]["count"], mask, x.shape[1], 5)',
    ),
    Edit("commit half as often", "hope", "grid_2.ends(4)[n_2]", "grid_2.ends(8)[n_2]", True),
    Edit(
        "reads see the running state",
        "hope",
        "M_W2_seen = choose(grid_2.ends(4)[n_2], M_W2, M_W2_seen)",
        "M_W2_seen = M_W2",
    ),
    Edit(
        "gradient at the running state",
        "hope",
        "(k, M_write_l2norm, M_W2_seen, M_W1_seen)",
        "(k, M_write_l2norm, M_W2, M_W1)",
    ),
    Edit("no retention", "hope", "gate=gate,\n            toward=M_W2_init", "toward=M_W2_init"),
    Edit("decay toward zero", "hope", "            toward=M_W1_init,\n", ""),
    Edit("no eps in the normalised rate", "hope", "(0.01 + (x_W1", "(0.0 + (x_W1", True),
    Edit("no erase", "hope", "erase=erase_W2,\n", "erase=0.0 * erase_W2,\n"),
    Edit("sign of the log decay", "hope", "log_retain=alpha__log, valid", "log_retain=-alpha__log, valid"),
    Edit("mask ignored by the grid", "hope", '["M"]["count"], mask,', '["M"]["count"], None,'),
    Edit(
        "mask ignored by a convolution",
        "hope",
        'state=state["u.conv"], mask=mask',
        'state=state["u.conv"], mask=None',
    ),
    Edit(
        "tail of a convolution dropped",
        "hope",
        'state=state["u.conv"]',
        'state=self.initial_state(x.shape[0])["u.conv"]',
    ),
    Edit("count not advanced", "hope", '"count": grid_2.count', '"count": state["M"]["count"]'),
    Edit("memories swapped in the stack", "hope", "k_Mk, v_Mv, eta_Me", "v_Mv, k_Mk, eta_Me"),
    Edit("states swapped behind the loop", "hope", "memories_W2.select(2, 0)", "memories_W2.select(2, 1)"),
    Edit(
        "mean of a state over the batch",
        "hope",
        "M_W2 = M_W2_new",
        "M_W2 = M_W2_new.mean(0, keepdim=True).expand_as(M_W2_new)",
    ),
    Edit(
        "heads in the wrong order",
        "hope",
        "return y, M_W2_next, M_W1_next",
        "return y.flip(1), M_W2_next, M_W1_next",
    ),
    Edit("transposed weight in a gradient", "hope", "    matmul = key @ W2.mT", "    matmul = key @ W2"),
    Edit(
        "key cut from the outer gradient",
        "hope",
        "k = l2norm(k_Mk, eps=1e-06)",
        "k = l2norm(k_Mk, eps=1e-06).detach()",
    ),
    Edit(
        "memory starts from another weight",
        "hope",
        '"committed": {"W2": self.start(self.M.W2',
        '"committed": {"W2": self.start(self.M.W1',
    ),
    # learning from the task
    Edit("sign of a task step", "hope", "descent=0.001", "descent=-0.001", everywhere=True),
    Edit(
        "clock of a task memory",
        "hope",
        'path="F[1]",\n            every=4',
        'path="F[1]",\n            every=8',
    ),
    Edit(
        "task memory reads another's delta",
        "hope",
        'adapted(self.F[1].W2, state["F[1]"]',
        'adapted(self.F[1].W2, state["F[0]"]',
    ),
    Edit(
        "delta of a task memory not read",
        "hope",
        'adapted(self.F[2].W1, state["F[2]"], "W1")',
        "self.F[2].W1",
    ),
    Edit("no residual around a perceptron", "hope", "residual=True", "residual=False"),
    Edit(
        "scale of another perceptron",
        "hope",
        "scale=self.x[1].norm.weight",
        "scale=self.x[2].norm.weight",
    ),
    # recurrences
    Edit("growth instead of decay", "gated_deltanet", "alpha_neg = -softplus", "alpha_neg = softplus"),
    Edit("feedback before the decay", "gated_deltanet", 'feedback="decayed"', 'feedback="raw"'),
    Edit("read above the write", "gated_deltanet", 'read="after"', 'read="before"'),
    Edit("nothing erased", "gated_deltanet", "S_add, S_erase, S_state", "S_add, 0.0 * S_erase, S_state"),
    Edit(
        "mask ignored by a recurrence", "gated_deltanet", 'read="after", mask=mask', 'read="after", mask=None'
    ),
    Edit("count ticks at masked tokens", "gated_deltanet", '["count"], mask, x)', '["count"], None, x)'),
    Edit(
        "state not carried",
        "gated_deltanet",
        'S_state = state["S"]["running"]["weight"]',
        "S_state = self.zeros(x.shape[0], 2, 4, 4)",
    ),
    Edit(
        "mean of a recurrence over the batch",
        "gated_deltanet",
        '{"weight": S_next}',
        '{"weight": S_next.mean(0, keepdim=True).expand_as(S_next)}',
    ),
    Edit("gates of other heads", "gated_deltanet", "log_decay=alpha_neg", "log_decay=alpha_neg.flip(2)"),
    Edit(
        "tails of two convolutions swapped",
        "gated_deltanet",
        'state=state["k.conv"]',
        'state=state["q.conv"]',
    ),
    Edit("query and key exchanged", "linear_attention", "linear_recurrence(q, k,", "linear_recurrence(k, q,"),
    Edit("a token does not see itself", "linear_attention", 'read="after"', 'read="before"'),
    # attention
    Edit(
        "position off by one",
        "transformer",
        'state=state["k.rope"]',
        'state={"count": state["k.rope"]["count"] + 1}',
    ),
    Edit("own pair not seen", "transformer", "mask=mask, scale", "read_before=True, mask=mask, scale"),
    Edit("window off by one", "transformer", "window=3", "window=4"),
    Edit("cache dropped", "transformer", 'v, state["A"]', 'v, self.initial_state(x.shape[0])["A"]'),
    Edit("mask ignored by attention", "transformer", "mask=mask, scale", "mask=None, scale"),
    # token by token
    Edit("base is what reads see", "steps", "(k_t, v_t, S_weight_base)", "(k_t, v_t, S_weight_seen)"),
    Edit(
        "clock of a base off by one", "steps", "ends_of(S_count, mask, x, 2)", "ends_of(S_count, mask, x, 3)"
    ),
    Edit(
        "commit one token early", "steps", "ends_of(S_count, mask, x, 3)", "ends_of(S_count + 1, mask, x, 3)"
    ),
    Edit("transposed gate", "steps", "F_weight * a_t", "F_weight * a_t.mT"),
    Edit(
        "momentum of masked tokens",
        "steps",
        "S_m_weight = hold(live, S_m_weight_next, S_m_weight)",
        "S_m_weight = S_m_weight_next",
    ),
    Edit(
        "read above a write that stands below",
        "steps",
        "matrix(q_t_2, F_weight_next_2)",
        "matrix(q_t_2, F_weight)",
    ),
    Edit(
        "transposed gradient",
        "steps",
        "(S_dy_weight * eta_t).mT @ S_x_weight",
        "S_x_weight.mT @ (S_dy_weight * eta_t)",
    ),
    Edit("sign of momentum", "steps", "theta_t * S_m_weight - ", "theta_t * S_m_weight + "),
    # gradients held at a base
    Edit("lessons lose their weights", "held", "weight=weight_lessons, ", "", True),
    Edit("lessons of masked tokens stay", "held", "(key_lessons, 1, valid)", "(key_lessons, 1, None)"),
    Edit("masked tokens have momentum", "held", "read_W2, valid=valid)", "read_W2)"),
    Edit("momentum is not carried", "held", "M_m_W2 = M_m_W2_new", "M_m_W2 = M_m_W2"),
    Edit("chunk without its anchor", "held", "            toward=M_W2_init,\n", ""),
    Edit("live read above the write", "held", "F_weight_course.after", "F_weight_course.before"),
    Edit("live gradient at the running state", "held", "(k, v, F_weight_base)", "(k, v, F_weight)"),
    Edit(
        "base moves behind every piece",
        "held",
        "F_weight_base = choose(grid_2.ends(3)[n_2], F_weight, F_weight_base)",
        "F_weight_base = F_weight",
    ),
    Edit("gathered without weights", "held", "weight=eta.mT, ", "", True),
    Edit("gathered twice", "held", "torch.zeros_like(C_W2_gathered_1), C_W2", "C_W2_gathered_1, C_W2"),
    Edit("not projected", "held", "1.0) * C_W2, eps=1e-06)", "1.0) * C_W2, eps=1e3)"),
    # all chunks in one function
    Edit(
        "live read in front of its write",
        "live",
        "read=1.0)\n        M_held",
        "read=1.0, before=True)\n        M_held",
    ),
    Edit(
        "live read without the momentum's rate",
        "live",
        "following(grid, k, log_retain=theta__log, beta=theta,",
        "following(grid, k, log_retain=theta__log, beta=1.0,",
    ),
    Edit("pass without its anchor", "live", "toward=(self.M.W2, self.M.W1)", "toward=()"),
    Edit("chunks of the pass are longer", "live", "x.shape[1], 3)", "x.shape[1], 4)"),
    Edit("windows without weights", "live", "gate_rows(k, theta)", "gate_rows(k, 1.0)"),
    Edit("windows are not carried", "live", "N_lessons.kept[2]", 'state["N"]["windows"]["0"]["weight"]'),
    Edit("way back without the rate's", "live", "sub_6 = sub_5.sub_(mul_9)", "sub_6 = sub_5"),
    Edit("rate does not look at the input", "live", "lr / add", "lr / 1.01", True),
    # rules at the commit in that function
    Edit("sum of a chunk without weights", "commit", ", lessons=M_lessons", ""),
    Edit("momentum without its rate", "commit", "slot_rate=eta, read=1.0", "slot_rate=1.0, read=1.0"),
    Edit(
        "what waits is not carried",
        "commit",
        '"W2": M_held.gathered[0]',
        '"W2": state["M"]["gathered"]["0"]["W2"]',
    ),
    Edit("commit one token late", "commit", "x.shape[1], 3)", "x.shape[1], 4)"),
    Edit("rate beside the momentum is lost", "commit", "rate=eta,\n", "rate=0.0,\n"),
    Edit("commit without its anchor", "commit", "toward=(self.M.W2, self.M.W1)", "toward=()"),
    Edit(
        "gate of another token", "held", "last_token(theta.mT[..., None], valid)", "theta.mT[:, :, :1, None]"
    ),
)
PATCHES = (
    Patch("sequential reads see the running state", "steps", token_memory.TokenMemory, "visible", running_of),
    Patch("sequential base is what reads see", "steps", token_memory.TokenMemory, "base", committed_of),
    Patch(
        "sequential write forgets its anchor",
        "steps",
        token_memory.TokenMemory,
        "_toward",
        lambda _: lambda self, write: None,
    ),
    Patch("chunks commit behind every piece", "hope", chunk_family.Family, "settle", always_committed),
    Patch(
        "recurrence without its gate",
        "gated_deltanet",
        recurrence,
        "_gates",
        lambda _: lambda code, detail: {},
    ),
    Patch(
        "attention without its window",
        "transformer",
        attention,
        "_options",
        lambda old: lambda *a: {k: v for k, v in old(*a).items() if k != "window"},
    ),
    Patch(
        "memory starts at zero",
        "steps",
        states,
        "_start",
        lambda _: lambda code, memory, index: states._empty(memory, index),
    ),
)
RUNTIME = (
    Patch("pending gradient not cleared", "hope", segments, "step", last_pending),
    Patch("live reads say nothing of gradients", "live", held_live.LiveWeight, "gather", silent_seeds),
    Patch("live reads say nothing of factors", "live", held_back.Toll, "add", lambda _: lambda *a: None),
    Patch("the way back forgets the anchor", "live", held_back._Way, "_faded", faded_to_nothing),
    Patch("the way back forgets what waits", "commit", held_walk.Back, "wait", nothing_waits),
    Patch("gates of a token that does not commit", "commit", grid.ChunkGrid, "last", counted_backward),
    Patch("sums are gone behind every piece", "commit", held_walk, "waiting", emptied_everywhere),
)
"""Faults of the runtime: the source is the same."""
