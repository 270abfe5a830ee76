"""Chunk steps whose backward pass is written out, as compiled functions of lanes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from threading import RLock
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from nldsl.native.graph import UnsupportedError
from nldsl.native.lanes import AFTER
from nldsl.native.places import places_of
from nldsl.native.probe import Flowed, Probe, differs
from nldsl.native.step_form import FEW, StepForm
from nldsl.runtime.chunk_back import WholeStep
from nldsl.runtime.module import Module
from nldsl.runtime.precision import chosen

STEP, BACK = "_step_", "_back"
"""How the methods of emitted modules that take one chunk begin, and how their backward passes end."""
MOST = 64
"""Calls that are told apart by their arguments alone."""
Tensors = Sequence[Tensor | None]
Pair = tuple[Callable[..., Any], Callable[..., Any]]


def steps_of(module: Module) -> list[str]:
    """The steps of a module whose backward pass is written out."""
    names = [name for name in dir(type(module)) if name.startswith(STEP)]
    return [name for name in names if f"{name}{BACK}" in names]


class NativeStep(WholeStep):
    """The step `name` of a module in lanes; what has no form there, torch computes as before."""

    def __init__(self, module: Module, name: str) -> None:
        self.module, self.name = module, name
        # A graph that torch has broken in front of it would take the compiler itself for a part of the step.
        self._apart: Callable[..., Pair | None] = torch.compiler.disable(self._pair)

    def __reduce__(self) -> tuple[Any, ...]:
        # What is compiled belongs to the class: copies share it, other processes make their own.
        return NativeStep, (self.module, self.name)

    @property
    def plain(self) -> Callable[..., Any]:  # type: ignore[override]
        """The emitted step."""
        return MethodType(getattr(type(self.module), self.name), self.module)

    @property
    def forms(self) -> StepForms:
        """What is known of this step of this class."""
        return forms_of(type(self.module), self.name)

    def pair(
        self,
        arguments: Tensors,
        parameters: Sequence[Tensor],
        shared: Sequence[int],
        recorded: bool,
        spare: bool,
    ) -> Pair | None:
        """The step and its backward pass in lanes, with the weights that the module has now."""
        return self._apart(arguments, parameters, shared, recorded, spare)

    def _pair(
        self,
        arguments: Tensors,
        parameters: Sequence[Tensor],
        shared: Sequence[int],
        recorded: bool,
        spare: bool,
    ) -> Pair | None:
        given = [*arguments, *parameters]
        lean, forms = spare or not recorded, self.forms
        key = (*(None if x is None else (type(x), x.dtype, x.is_cpu, x.shape) for x in given), recorded, lean)
        # What has been taken once has numbers of one type in ordinary memory.
        form = forms.quick.get(key) if unwatched() else None
        if form is None:
            if not ordinary([x for x in given if x is not None]):
                return None
            form = forms.ready(self.module, arguments, parameters, tuple(shared), Ways(recorded, lean))
            if form is None:
                return None
            if len(forms.quick) >= MOST:
                forms.quick.clear()
            forms.quick[key] = form
        values = [value_at(self.module, path) for path in form.paths]
        like = next(x for x in given if x is not None and x.is_floating_point())
        return form.bound(values, lean) if memory([like, *values]) else None


def ordinary(given: Sequence[Tensor]) -> bool:
    """Whether these are numbers in memory of one of two types, and nobody looks on."""
    return unwatched() and memory(given)


def memory(given: Sequence[Tensor]) -> bool:
    """Whether these are numbers in memory of one of two types."""
    kinds = {x.dtype for x in given if x.is_floating_point()}
    return (
        len(kinds) == 1
        and kinds <= {torch.float32, torch.float64}
        and all(type(x) in (Tensor, nn.Parameter) and x.is_cpu and x.numel() for x in given)
    )


def unwatched() -> bool:
    """Whether nobody looks on at what torch computes, or wants it in other types."""
    return (
        chosen() is None
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and _get_current_dispatch_mode() is None
        and torch._C._get_tracing_state() is None
    )


def value_at(module: Any, path: str) -> Any:
    """What a module has at a path such as `q[1].weight`."""
    for part in _parts(path):
        module = module[part] if isinstance(part, int) else getattr(module, part)
    return module


@cache
def _parts(path: str) -> tuple[str | int, ...]:
    return tuple(int(p) if p.isdigit() else p for p in re.findall(r"[^.\[\]]+", path))


class Ways(NamedTuple):
    """What of a form is called: `back`, the backward pass too; `lean`: nothing more is kept for it."""

    back: bool
    lean: bool


class StepForms:
    """The forms of one emitted step, one for every form of its arguments, and why there is none."""

    def __init__(self, step: Callable[..., Any], back: Callable[..., Any]) -> None:
        self.step, self.back = step, back
        self.reasons: dict[str, None] = {}
        """Why torch computes some calls."""
        self.after = AFTER
        self._seen: Counter[object] = Counter()
        self._forms: dict[object, StepForm] = {}
        self._ready: dict[object, StepForm | None] = {}
        self.quick: dict[object, StepForm] = {}
        """The forms of calls that have come before, by what has to be looked at in each."""
        self._lock = RLock()

    @property
    def count(self) -> int:
        """How many forms run natively."""
        return sum(form is not None for form in self._ready.values())

    @property
    def notes(self) -> dict[str, None]:
        """What runs natively, but not as well as it might."""
        lean = [reason for form in self._ready.values() if form for reason in form.lean]
        return dict.fromkeys(f"nothing more is kept for the way back, as {reason}" for reason in lean)

    def ready(
        self,
        module: Any,
        arguments: Tensors,
        parameters: Sequence[Tensor],
        shared: tuple[int, ...],
        ways: Ways,
    ) -> StepForm | None:
        """The form for such arguments, made and compared with the emitted step once `after` were seen."""
        sizes = tuple(
            None if x is None else (x.dtype, x.shape if i in shared else x.shape[1:])
            for i, x in enumerate(arguments)
        )
        key = (sizes, ways)
        with self._lock:
            if key not in self._ready:
                self._seen[key] += 1
                if self._seen[key] <= self.after:
                    return None
                self._ready[key] = self._made(module, arguments, parameters, shared, ways)
            return self._ready[key]

    def _made(
        self,
        module: Any,
        arguments: Tensors,
        parameters: Sequence[Tensor],
        shared: tuple[int, ...],
        ways: Ways,
    ) -> StepForm | None:
        reasons: list[str] = []
        with torch.no_grad():
            try:
                probe = Probe(self.step, self.back, module, arguments, parameters)
            except UnsupportedError as error:
                self.reasons[str(error)] = None
                return None
            wanted = probe.wanted()
            for axes in (2, 1):
                try:
                    form = self._form(probe, shared, axes)
                    independent(form, probe, wanted)
                    compared(form, probe, wanted, ways)
                except UnsupportedError as error:
                    reasons.append(str(error))
                else:
                    return form
        # Without heads there is one reason: the other one.
        self.reasons[reasons[-1]] = None
        return None

    def _form(self, probe: Probe, shared: tuple[int, ...], axes: int) -> StepForm:
        """The form with so many lane axes; one serves calls with and without a way back."""
        places = places_of(probe.arguments, shared, probe.values, axes)
        key = (tuple(places[0]), tuple(places[1]), tuple(x is None for x in probe.arguments), probe.key)
        if key not in self._forms:
            self._forms[key] = StepForm(
                self.step, self.back, axes, places, probe.paths, probe.asked, probe.found
            )
        return self._forms[key]


def independent(form: StepForm, probe: Probe, wanted: tuple[Flowed, Flowed]) -> None:
    """Raise `UnsupportedError` where lanes are no steps: torch shows it in less time than C is compiled."""
    want, exact = (flowed.results for flowed in wanted)
    try:
        got = form.by_lanes(probe.arguments, probe.values)
    except (RuntimeError, IndexError, ValueError) as error:
        said = str(error).strip().splitlines()
        raise UnsupportedError(f"a lane alone is no step: {said[0] if said else error!r}") from error
    if differs(got, [y[:FEW] for y in want], [y[:FEW] for y in exact]):
        raise UnsupportedError("heads and samples are not independent of one another")


def compared(form: StepForm, probe: Probe, wanted: tuple[Flowed, Flowed], ways: Ways) -> None:
    """Raise `UnsupportedError` where lanes do not give what the step gives, or are not compiled."""
    want, exact = wanted
    pair = None if ways.lean else form.pair(probe.arguments, probe.values)
    try:
        results, kept = form.forward(probe.arguments, probe.values, pair)
        got = [*(results if form.many else [results]), *kept[: form.writes]]
        same = not differs(got, [*want.results, *want.kept], [*exact.results, *exact.kept])
        if same and ways.back:
            flows = form.backward(probe.arguments, probe.values, kept, probe.grads, pair)
            same = not differs(flows, want.flows, exact.flows)
    except (RuntimeError, IndexError, ValueError) as error:
        said = str(error).strip().splitlines()
        raise UnsupportedError(f"it cannot be called: {said[0] if said else error!r}") from error
    reason = next(iter([*form.ahead.reasons.values(), *form.behind.reasons.values()]), None)
    if reason is not None or not same:
        raise UnsupportedError(reason or "what C gives differs from torch's")


_LOCK = RLock()


def forms_of(kind: type, name: str) -> StepForms:
    """What is known of a step of a class of modules; it lives as long as the emitted function."""
    step = getattr(kind, name)
    with _LOCK:
        if not hasattr(step, "forms"):
            step.forms = StepForms(step, getattr(kind, f"{name}{BACK}"))
    found: StepForms = step.forms
    return found
