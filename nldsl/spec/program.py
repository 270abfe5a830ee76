"""The elaborated program: every name resolved, every number bound, every shape known.

This is what the interpreter, the level graph, the calculus and the planner read.  All of it is
frozen.  A block is straight-line code in single-assignment form over *one token*; the only
structure left is `Call` (another block) and `Repeat` (n copies of a block, one after the other).
`for` and `if` are unrolled.

Paths.  `path` fields are relative to the enclosing block.  The absolute path of a thing joins the
paths on the way down with dots: `blocks[3]` + `gated_deltanet` + `q.linear.weight`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from nldsl.catalog.values import Initialiser, Kind, Options, Role, Shape, Static
from nldsl.source import Span

if TYPE_CHECKING:
    from nldsl.spec.outer_rules import OuterRule


def option(options: Options, name: str, default: Static = None) -> Static:
    """The value of option `name`, or `default`."""
    return dict(options).get(name, default)


@dataclass(frozen=True)
class Value:
    """A value at one token; `name` is unique in its block or function."""

    name: str
    shape: Shape
    kind: Kind


@dataclass(frozen=True)
class Parameter:
    """A slow parameter.  `per head` initial states carry the head axis in `shape`."""

    path: str
    shape: Shape
    init: Initialiser
    role: Role
    span: Span | None = field(default=None, compare=False, repr=False)
    schedule: tuple[str, Options] | None = field(default=None, repr=False)
    """A number that `train` sets at every step: the name of a schedule and its options.  No rule moves it."""
    fixed: bool = field(default=False, repr=False)
    """A constant, drawn like a parameter and never learned: the start of a memory with `init fixed`."""


@dataclass(frozen=True)
class Apply:
    """`out = op(args, **options)`: one primitive of the library, at one token.

    `parameters` are the slow parameters it owns, in the order its contract lists them.
    Hidden state (conv tails, positions) is named by `path`.  Literals are the op `constant`
    (option `value`, no args, scalar).
    """

    out: Value
    op: str
    args: tuple[Value, ...]
    options: Options = ()
    parameters: tuple[Parameter, ...] = ()
    path: str = ""
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Function:
    """A map, an objective or a rule with everything bound: straight-line code.

    map: inputs `(z,)`, `weights` are the memory's own fast weights (values of kind matrix/vector
    that occur in `body` by name), outputs `(y,)`.  objective: inputs `(pred, target)` and, if it
    asks for it, the memory's weights; outputs one scalar.
    """

    name: str
    inputs: tuple[Value, ...]
    weights: tuple[Value, ...]
    body: tuple[Apply, ...]
    outputs: tuple[Value, ...]
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Clock:
    """Fires when the count of unmasked tokens (or steps) since the reset is a multiple of `every`."""

    every: int
    unit: Literal["tokens", "steps", "never", "always"]
    """`always` is frequency infinity (softmax memories), `never` frequency zero."""


@dataclass(frozen=True)
class Slot:
    """A memory of a rule: `memory m = like(W)` starts at zero, `like(sum(W))` and `matrix(like = W)` too."""

    name: str
    like: Literal["W"] = "W"
    clock: Clock | None = None
    visible: str = ""
    """On a clock of several steps: the input that holds the state as of the last multiple of the clock.

    The input called `name` is the running state, and the output is its successor.
    """
    shape: Shape | None = None
    """Its own shape: of `like(sum(W))`, or of a weight of a map of its own (Eq. 50); `None`: that of `W`."""
    initial: Parameter | None = None
    """Where such a weight starts: a learned parameter, copies per head in front.  `None`: zero."""
    shapes: tuple[Shape, ...] = field(default=(), repr=False)
    """Its shape beside each weight of a memory of several, where they differ; `shape` is the first.

    It follows from the rule and the weights, and so is no part of what a program is known by.
    """

    def shape_beside(self, weight: Shape, index: int = 0) -> Shape:
        """Its shape beside a weight of shape `weight`, the memory's weight number `index`."""
        if self.shapes:
            return self.shapes[index]
        return weight if self.shape is None else self.shape


@dataclass(frozen=True)
class Rule:
    """An update rule with its arguments bound, for one weight `W`.

    `function.inputs` are a subset, by name, of: `W` (what the rule is given: `W - r`), `g` (the
    gradient), `x` (the weight's own input), `dy` (the gradient at its output), `step`, every slot,
    and the arguments that are values (`arguments` maps them to values of the enclosing block).
    `function.outputs` are the new `W` first, then the new slots in order.  Static arguments are
    constants in the body.
    """

    name: str
    function: Function
    slots: tuple[Slot, ...]
    arguments: tuple[tuple[str, Value], ...]
    static: Options


@dataclass(frozen=True)
class Memory:
    """An associative memory of a block.

    `function` is its map for *one head*; `heads` copies per sample (1 and `per_head = False` if
    not declared per head).  Weight `w` has state `[batch, heads, *shape]` (`[batch, *shape]` if not
    per head).  `initial[i]` is the parameter of the initial state of `function.weights[i]`
    (shape with the head axis in front if per head; a constant for `init fixed`), `None` for `init zero`.
    Softmax memories have `function = None` and their options (`window`, `start`, `causal`, `scale`).
    """

    name: str
    path: str
    level: str
    clock: Clock
    function: Function | None
    per_head: bool
    heads: int
    key_size: int
    value_size: int
    init: Literal["zero", "learned", "first", "fixed", "from"]
    initial: tuple[Parameter | None, ...]
    init_from: str | None = None
    reset: Literal["sequence", "tokens", "never"] = "sequence"
    reset_every: int = 0
    options: Options = ()
    parameters: tuple[Parameter, ...] = ()
    """Slow parameters of the map, start pairs of `softmax`, starts of the deep memories of its rules."""
    trained: GroupRule | None = None
    """On a clock of steps: how `train` moves the weights, which are the parameters in `initial`."""
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Read:
    """`out = M[key]` with the visible state; `solve` reads carry the second memory and ridge."""

    out: Value
    memory: str
    key: Value
    solve: tuple[str, float, int] | None = None
    span: Span | None = field(default=None, compare=False, repr=False)
    lone: ClassVar[bool] = False


@dataclass(frozen=True)
class Solution(Read):
    """`out = solve(M, key)`: the solution itself; both memories are `M`."""

    lone: ClassVar[bool] = True


@dataclass(frozen=True)
class Term:
    """`[key] <- target minimize objective by rule` inside a write."""

    key: Value
    target: Value
    objective: Function
    rule: Rule
    weight: Value | None = None
    window: int = 1
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Write:
    """All terms are evaluated first, then step together; see section 2 of the language.

    `retain` is the gate `a` (kind scalar, heads, headed = per key channel; `retain_axis` says which),
    `toward` what it decays to.  `base_every` is `b`.  Softmax memories: one term, objective and rule
    are those of the non-parametric solution and are ignored (`append = True`).
    """

    memory: str
    terms: tuple[Term, ...]
    retain: Value | None = None
    retain_axis: Literal["scalar", "key", "value", "element"] = "scalar"
    toward: Literal["zero", "init"] = "zero"
    base_every: int = 1
    at_commit: bool = False
    project: str | None = None
    append: bool = False
    retain_log: Value | None = None
    """The logarithm of `retain`, where the planner found one (see `plan.gates`)."""
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class TaskWrite:
    """`F minimizes task by rule`: performed by `learn`, never by `forward`."""

    memory: str
    rule: Rule
    retain: Value | None = None
    toward: Literal["zero", "init"] = "zero"
    outer: GroupRule | None = field(default=None, compare=False, repr=False)
    """The rule as a group of `train` has it, for a clock of steps; `None` if it depends on tokens."""
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Update:
    """`M *= a` (scale, along `axis`), `M += e` (add), `M = e` (set): the running state, directly."""

    memory: str
    op: Literal["scale", "add", "set"]
    value: Value
    axis: Literal["scalar", "key", "value", "element"] = "scalar"
    value_log: Value | None = None
    """The logarithm of a scaling, where the planner found one."""
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Call:
    """`outs = block(args)`; the callee's things live under `path`."""

    outs: tuple[Value, ...]
    block: Block
    args: tuple[Value, ...]
    path: str
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Repeat:
    """`count` copies of `block` one after the other.

    The first `len(outs)` inputs of `block` are carried (copy i+1 gets copy i's outputs, the first
    gets `args`), the rest are the same for every copy.  Copy `i` lives under `path[i]`.
    """

    outs: tuple[Value, ...]
    block: Block
    args: tuple[Value, ...]
    count: int
    path: str
    span: Span | None = field(default=None, compare=False, repr=False)


Statement = Apply | Read | Write | TaskWrite | Update | Call | Repeat


@dataclass(frozen=True)
class Block:
    """A block with its arguments bound.  `static` are the bound options, for names and printing.

    Two `Block`s that are equal (spans aside) are the same class in emitted code.
    """

    name: str
    inputs: tuple[Value, ...]
    memories: tuple[Memory, ...]
    body: tuple[Statement, ...]
    outputs: tuple[Value, ...]
    static: Options = ()
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class GroupRule:
    """Who trains what: selectors are role names or globs over absolute parameter paths."""

    selectors: tuple[str, ...]
    rule: str
    arguments: Options
    every: int = 1
    schedules: tuple[tuple[str, str, Options], ...] = ()
    """Arguments that are schedules: (argument, schedule name, its options)."""
    level: str = "training"
    """The level of `train` that the group stands in."""
    spans: tuple[Span, ...] = field(default=(), compare=False, repr=False)
    """Where each selector stands."""
    bound: Rule | None = field(default=None, compare=False, repr=False)
    """The rule elaborated on a probe weight of two axes: what the graph reads its optimiser memories from."""
    outer: OuterRule | None = field(default=None, compare=False, repr=False)
    """The rule with its arguments, to be elaborated for every weight that the group trains."""


@dataclass(frozen=True)
class TrainPlan:
    """The `train` section of a model.  `carry` is `trunc` or `exact` (section 6 of the language)."""

    task: str
    carry: Literal["trunc", "exact"]
    groups: tuple[GroupRule, ...]
    truncate: int = 0
    clip: float = 0.0
    learn_generated: bool = False
    """Whether generated tokens are targets of the task writes too."""
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Program:
    """A model (inputs are token streams) or one block, ready for every later stage."""

    name: str
    kind: Literal["model", "block"]
    root: Block
    train: TrainPlan | None = None
    sources: tuple[tuple[str, str], ...] = ()
    """(file name, sha256) of every text that took part, the one that was asked for first."""
