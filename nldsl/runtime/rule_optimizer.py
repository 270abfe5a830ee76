"""The base class of emitted optimizers: a rule of the language as a `torch.optim.Optimizer`.

What is here is the same for all rules: groups, memories as state, clocks, bad gradients.  What a rule does
to one weight is in the kernels of the emitted subclass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nldsl.catalog.bounds import Bounds
from nldsl.runtime.gathered_rows import GatheredRows
from nldsl.runtime.rule_bundle import Bundle, Choice, Place, choose, last_of_few
from nldsl.runtime.rule_cycled import SCHEDULED, Cycled
from nldsl.runtime.rule_gradients import Arrival, Due, Policy, arrived, checked, repaired, zeroes
from nldsl.runtime.rule_groups import (
    Setting,
    Settled,
    bad_argument,
    clock_of,
    gathered,
    gathering,
    require_clock,
    require_numbers,
    require_settings,
    require_shape,
    require_unscaled,
    settle,
    slow,
)
from nldsl.runtime.rule_kernel import Kernel, Told, refusal
from nldsl.runtime.rule_lineup import Lineup
from nldsl.runtime.rule_loading import put_back, require_rule
from nldsl.runtime.rule_numbers import Numbers
from nldsl.runtime.rule_room import Room, apart
from nldsl.runtime.rule_rows import Rows, attach
from nldsl.runtime.rule_shards import sharded
from nldsl.runtime.rule_states import emptied, require_state, stacked

Shape = tuple[int, ...]
Form = Literal["auto", "eager", "compiled"]
KNOWN_KEYS = SCHEDULED | {"params", "param_names", "name", "every"}
"""What a group may hold besides the arguments of the rule."""


class RuleOptimizer(torch.optim.Optimizer):
    """An optimizer whose rule was written in the language.

    params: parameters, named parameters, or groups of either, as in `torch.optim`; the open arguments of
    the rule are options of a group, so schedulers move `group["lr"]` as ever.  every: steps of the clock;
    in between gradients are summed.  nonfinite: what to do about NaN and infinity in a gradient: `raise`,
    `skip` the step, take them as `zero`, or `ignore` them (no check).  form: `eager`, `compiled`, or `auto`.
    seed: of memories that start at drawn values.  whole: for parts of weights, something of the shape of the
    weight, by which their kernels are chosen (element-wise rules act on parts as on the whole).

    State is allocated at once: `state[p]["step"]` counts applications, the memories carry their names.
    Raises `SpecError`: NL0963 for a weight the rule cannot train, NL0966 for one that is complex or whose
    gradient is sparse, NL0967 for a gradient that is not finite, NL0968 for a bad argument of a group.
    """

    rule: ClassVar[str] = ""
    arguments: ClassVar[dict[str, float]] = {}
    fixed: ClassVar[dict[str, Any]] = {}
    kernels: ClassVar[dict[Shape, Kernel]] = {}
    source: ClassVar[str] = ""
    bounds: ClassVar[dict[str, Bounds]] = {}
    told: ClassVar[Told | None] = None
    nonfinite = Setting()
    form = Setting()

    def __init__(
        self,
        params: Any,
        *,
        every: int = 1,
        nonfinite: Policy = "raise",
        form: Form = "auto",
        seed: int = 0,
        more: Callable[[Shape], Kernel | None] | None = None,
        whole: Mapping[Tensor, Tensor] | None = None,
        **arguments: float | Tensor,
    ) -> None:
        require_settings(nonfinite, form, seed)
        self.nonfinite, self.form = nonfinite, form
        self.seed = seed
        self.more = more
        self.whole = dict(whole or {})
        self.choices: dict[tuple[object, ...], Choice] = {}
        self.places: dict[int, Place] = {}
        self.lineups: dict[int, Lineup] = {}
        self.rows: dict[Tensor, Rows] = {}
        self.settled: dict[int, Settled] = {}
        self.cycled = Cycled(self.arguments, self.fixed)
        unknown = [name for name in arguments if name not in self.arguments]
        if unknown:
            raise bad_argument(self, unknown[0])
        usual = {**self.arguments, **arguments, "every": every}
        super().__init__(params, {**usual, **self.cycled.default(usual)})

    # --- what it trains -----------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters that are trained from now on; their memories are allocated here."""
        for name in param_group:
            if name not in KNOWN_KEYS | self.arguments.keys() | self.cycled.words:
                raise bad_argument(self, name)
        if name := self.cycled.changed(param_group):
            raise bad_argument(self, name)
        said = self.cycled.word in param_group
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        self.cycled.begin(group, said)
        every = clock_of(group)
        require_numbers(self, group)
        for index, p in enumerate(group["params"]):
            self._check(p, self._name(group, index), every)
        room = self._room(group["params"])
        for index, p in enumerate(group["params"]):
            self._allocate(p, self._name(group, index), every, room)
        self.forget_places()

    def kernel_of(self, p: Tensor, name: str = "a parameter") -> Kernel:
        """The kernel that trains `p`; raises NL0963 if there is none."""
        for shape in self._shapes(self.whole.get(p, p)):
            kernel = self.kernels.get(shape)
            if kernel is None and self.more is not None and (kernel := self.more(shape)) is not None:
                type(self).kernels = {**self.kernels, shape: kernel}
            if kernel is not None:
                return kernel
        raise refusal(
            "NL0963",
            f"`{self.rule}` works on matrices, and {name} has shape {list(p.shape)}",
            "give it to another rule, such as `adamw(lr = 3e-4)`; a rule of your own can say what it does "
            "with each: `if rank(W) == 2 { ... } else { ... }`",
        )

    def attach_rows(self, layer: nn.Module | None, weight: Tensor) -> None:
        """Let a linear layer put the rows of the rule in place of its output gradient."""
        kernel = self.kernel_of(weight)
        assert kernel.looks_at_rows
        if sharded(weight):
            raise refusal(
                "NL0994",
                f"`{self.rule}` looks at rows of layers, and processes hold shares of {self.name_of(weight)}",
                "`DistributedDataParallel` leaves weights whole; or give it to another rule",
            )
        if kernel.rows is not None:
            name = self.name_of(weight)
            self.rows[weight] = Rows(kernel.rows, lambda: self._arguments_of(weight), name)
        else:
            self.rows[weight] = GatheredRows(self.name_of(weight))
        attach(layer, weight, self.rows[weight])

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Asks a `GradScaler` to say that it is there, where a scaled loss would scale the erase away."""
        return any(rows.erases for rows in self.rows.values())

    @property
    def several_passes(self) -> bool:
        """Whether forward and backward passes of one step alternate, for rules that look at rows.

        Such a rule erases by the mean over the rows of the step: where it cannot know them all in the first
        backward pass it keeps a sum per weight, and one more product.
        """
        return any(rows.several for rows in self.rows.values())

    @several_passes.setter
    def several_passes(self, several: bool) -> None:
        for rows in self.rows.values():
            rows.several = several

    def _arguments_of(self, weight: Tensor) -> list[float]:
        group = next(g for g in self.param_groups if any(p is weight for p in g["params"]))
        self.cycled.follow(group)
        return [float(group[name]) for name in self.arguments]

    @staticmethod
    def _shapes(p: Tensor) -> list[Shape]:
        """The shapes under which `p` is looked up: a stack is many matrices, or one long vector."""
        if p.ndim <= 2:
            return [tuple(p.shape) or (1,)]
        return [tuple(p.shape[-2:])] if p.ndim == 3 else [(p.numel(),)]

    def _check(self, p: Tensor, name: str, every: int) -> None:
        if p.is_complex():
            raise refusal("NL0966", f"{name} is complex", "train its real and imaginary part: `view_as_real`")
        require_shape(self, p, name)
        require_clock(self.rule, self.kernel_of(p, name), every)

    def _room(self, params: Iterable[Tensor]) -> Room:
        """Memory for all memories that are as large as their weights."""
        here = [p for p in params if p.is_cpu and type(p.detach()) is Tensor]
        return Room(p.nbytes for p in here for m in self.kernel_of(p).memories if m.shape is None)

    def _allocate(self, p: Tensor, name: str, every: int, room: Room) -> None:
        kernel = self.kernel_of(p, name)
        copies = p.shape[0] if stacked(kernel, p) else 0
        state: dict[str, Tensor] = {"step": torch.tensor(0.0, dtype=torch.float32)}
        for index, memory in enumerate(kernel.memories):
            start = memory.start(p.detach(), copies, self.seed, name.strip("`"))
            state[memory.name] = room.put(start, p, apart(index, len(kernel.memories)))
        if every > 1:
            state.update(gathering(p.detach()))
        self.state[p] = {**self.state.get(p, {}), **state}

    def name_of(self, p: Tensor) -> str:
        """How a parameter that is trained is called in messages."""
        for group in self.param_groups:
            for index, own in enumerate(group["params"]):
                if own is p:
                    return self._name(group, index)
        raise KeyError("the tensor is trained by another optimizer")

    def _name(self, group: Mapping[str, Any], index: int) -> str:
        """How a parameter is called in messages."""
        if "param_names" in group:
            return f"`{group['param_names'][index]}`"
        number = next((i for i, g in enumerate(self.param_groups) if g is group), 0)
        return f"parameter {index} of group {number}"

    # --- steps --------------------------------------------------------------------------------

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every group whose clock fires; returns what `closure` gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        require_unscaled(self)
        for group in self.param_groups:
            settle(self, group)
        due = [(group, *self._arrived(group)) for group in self.param_groups]
        if self.nonfinite != "ignore" and not checked(self, due):
            return loss
        self._rows_are_known()
        if self._apply(due):
            repaired(self, due)
        return loss

    def _apply(self, due: Due) -> bool:
        """Apply the rule to what has arrived; whether something was taken as zero that is not finite."""
        zeroed = False
        for group, found, lineup, zero in reversed(due):  # what was looked at last still lies in the cache
            if lineup is not None:
                zeroed |= lineup.run(self._numbers(group, lineup.kernel, lineup.tick()), zero)
            else:
                late = slow(self, group)
                ready = self._settled(list(gathered(self, group, found))) if late else found
                zeroed |= self._update(group, ready, zero)
        return zeroed

    def _rows_are_known(self) -> None:
        """Raise NL0972 or NL0974 if layers have not told their rows; the next ones are of another step."""
        if not self.rows and any(kernel.looks_at_rows for kernel in self.kernels.values()):
            raise refusal("NL0972", f"`{self.rule}` has lost its layers: a copy has to be made anew")
        for weight, rows in self.rows.items():
            rows.require_seen(weight)
        for rows in self.rows.values():
            if not isinstance(rows, GatheredRows):
                rows.forget()

    def _arrived(self, group: Mapping[str, Any]) -> tuple[list[Arrival], Lineup | None, bool]:
        """Every parameter that has a gradient, with it; or the lineup of the last step, if it takes them.

        And whether loops may take what is not finite as zero; sums that overflow stay as they are.
        """
        lineup = self.lineups.get(id(group)) if clock_of(group) == 1 else None
        if lineup is not None and lineup.takes(group["params"], self.state):
            return [], lineup, zeroes(self)
        return self._settled(arrived(self, group["params"])), None, zeroes(self) and not slow(self, group)

    def _settled(self, found: list[Arrival]) -> list[Arrival]:
        """The same, when all are found before anything changes; what does not fit together is refused."""
        for p, _ in found:
            place = self.places.get(id(p))
            if place is None or place.counter.value >= place.until or not place.fits(self.state[p], p):
                self._place(p)
        return found

    def _update(self, group: dict[str, Any], ready: Iterable[Arrival], zero: bool) -> bool:
        """Apply the rule; parameters that share a kernel and a step share its numbers.

        zero: take what is not finite as zero where a loop can; returned is whether there was any.
        """
        bundles: dict[tuple[int, float], Bundle] = {}
        for p, g in ready:
            place = self.places[id(p)]
            step = place.tick()
            key = (place.kernel_id, step)
            bundle = bundles.get(key)
            if bundle is None:
                bundle = bundles[key] = Bundle(self._numbers(group, place.kernel, step), zero)
            bundle.add(p, place, g)
        made = [lineup for bundle in bundles.values() for lineup in bundle.run(self.state)]
        if group["every"] == 1 and len(made) == 1:
            self.lineups[id(group)] = made[0]
        return any(bundle.zeroed for bundle in bundles.values())

    def _numbers(self, group: Mapping[str, Any], kernel: Kernel, step: float) -> Numbers:
        """What depends on the step and the arguments of a group alone."""
        return Numbers(kernel, [step, *(float(group[name]) for name in self.arguments)])

    def _place(self, p: Tensor) -> None:
        """Find where `p` and its memories are; again when somebody has moved them."""
        kernel = self.kernel_of(p)
        if emptied(kernel, self.state[p]):
            self._allocate(p, self.name_of(p), 1, self._room([p]))
        state = self.state[p]
        require_state(kernel, p, state, self.name_of(p))
        late = float(state["step"]) >= last_of_few(self)
        key = (id(kernel), type(p), p.dtype, p.device.type, p.ndim == 3, late)
        if key not in self.choices:
            self.choices[key] = choose(self, kernel, p)
        rows = self.rows.get(p)
        take = partial(rows.take, name=self.name_of(p)) if isinstance(rows, GatheredRows) else None
        self.places[id(p)] = Place(kernel, state, p, self.choices[key], take)

    def forget_places(self) -> None:
        """Choose anew, at the next step, how every weight is stepped."""
        for known in (self.choices, self.places, self.lineups, self.settled):
            known.clear()

    # --- state --------------------------------------------------------------------------------

    def memories(self, name: str) -> dict[Tensor, Tensor]:
        """A memory of the rule for every parameter that has it, such as the average of `schedule_free`."""
        return {p: s[name] for p, s in self.state.items() if name in s}

    def forms(self) -> dict[str, tuple[str, str]]:
        """For every parameter how it is updated, `compiled`, `eager` or `matrix`, and why."""
        found: dict[str, tuple[str, str]] = {}
        for group in self.param_groups:
            for index, p in enumerate(group["params"]):
                kernel = self.kernel_of(p)
                choice = choose(self, kernel, p)
                form = "compiled" if choice.step else "matrix" if kernel.form == "matrix" else "eager"
                reason = kernel.reason if form == "matrix" and not kernel.native else choice.reason
                found[self._name(group, index).strip("`")] = form, reason
        return found

    def state_dict(self) -> dict[str, Any]:
        """The memories and groups, as in `torch.optim`."""
        for group in self.param_groups:
            self.cycled.follow(group)
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put a saved state back; raises NL0969 if it is of another rule, and then changes nothing."""
        wanted = {p: dict(self.state[p]) for group in self.param_groups for p in group["params"]}
        before, given = (self.state, self.param_groups), list[dict[str, Any]]()

        def loaded(_: torch.optim.Optimizer) -> None:
            for group in self.param_groups:
                require_rule(self, wanted, group)
            put_back(self, given[-1], wanted)
            self.forget_places()

        # Hooks of users come first on the way in, where they may give another state, and last on the way out.
        hooks = [
            self.register_load_state_dict_pre_hook(lambda _, found: given.append(found)),
            self.register_load_state_dict_post_hook(loaded, prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        except BaseException:
            self.state, self.param_groups = before
            raise
        finally:
            for hook in hooks:
                hook.remove()

    @classmethod
    def complete(cls, told: Told) -> None:
        """Give an emitted class what does not stand in its text."""
        cls.told, cls.source, cls.bounds = told, told.source, told.bounds
        cls.kernels = told.with_loops(cls.kernels)

    def __setstate__(self, state: dict[str, Any]) -> None:
        if (told := state.pop("told", None)) and not self.told:  # in another process the class is new
            self.complete(told)
        super().__setstate__(state)

    def __getstate__(self) -> dict[str, Any]:
        own = {n: getattr(self, n) for n in ("nonfinite", "form", "seed", "more", "whole", "told")}
        made: dict[str, Any] = {"choices": {}, "places": {}, "lineups": {}, "settled": {}, "rows": {}}
        cycled = Cycled(self.arguments, self.fixed)
        return {**super().__getstate__(), **own, **made, "cycled": cycled}
