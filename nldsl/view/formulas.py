"""Update equations in two notations: plain text and LaTeX, side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nldsl.calculus import Expr, UpdateClass, WeightGradient, symbol
from nldsl.calculus.affine import scalar_value
from nldsl.calculus.mirror import MirrorForm, mirror_form
from nldsl.calculus.pieces import Piece
from nldsl.calculus.rules import RuleForm, rule_form
from nldsl.graph.equations import rule_formula
from nldsl.spec.program import Memory, TaskWrite, Term, Update, Write, option
from nldsl.view.pairs import Called, is_one, told_pair
from nldsl.view.pens import Formula, Pen, Recurrence, authors, both, pens
from nldsl.view.shared import shared
from nldsl.view.spectrum import rank_one

Lines = tuple[tuple[Formula, ...], tuple[Formula, ...]]
"""Equations, and what their letters stand for."""


def write_formulas(
    memory: Memory, write: Write, update: UpdateClass, scale: Update | None, called: Called
) -> Lines:
    """The update of `memory` by one write, weight by weight if it is no closed recurrence.

    `scale` is the `S *= gate` above the write; `called` says how values are written.
    """
    if write.append:
        return attention_formulas(memory)
    names = [_names(memory, write, n, called) for n in range(len(write.terms))]
    online = memory.clock.every == 1 and write.base_every == 1
    forms = [t.online for t in update.terms]
    where = tuple(f for n, t in enumerate(write.terms) for f in _defined(t, n, len(write.terms), called))
    if online and update.letter in ("D", "R") and all(f is not None for f in forms):
        return _closed(memory, write, update, scale, names), where
    pieces = rank_one(memory, write) if online else None
    if pieces is not None:
        return (_of_pieces(memory, write, scale, names, pieces),), where
    turned = rank_one(memory, write, "value") if online and len(write.terms) > 1 else None
    if turned is not None and (write.retain is None or write.retain_axis == "scalar"):
        return (_along_values(memory, write, scale, names, turned),), where
    lines, more = _by_weight(memory, write, update, names)
    return lines, (*more, *where, *_seen(memory, write))


def attention_formulas(memory: Memory) -> Lines:
    """The non-parametric memory: an average over what was kept."""
    window = option(memory.options, "window", 0)
    first = f"t - {window} < i <= t" if window else "i <= t"
    text = f"y_t = sum_i softmax_i(k_i^T q_t) v_i  over {first}"
    span = rf"t - {window} < i \le t" if window else r"i \le t"
    latex = rf"y_t = \sum_{{{span}}} \mathrm{{softmax}}_i(k_i^{{\top}} q_t)\, v_i"
    return (Formula(text, latex),), ()


def task_formulas(memory: Memory, write: TaskWrite) -> Lines:
    """A memory that takes the task's gradient, once per chunk."""
    assert memory.function is not None
    form = rule_form(write.rule, memory.function.weights[0].shape).form
    line = _rule_line(rule_formula(write.rule, short=True))
    if form is not None and form.momentum is None and scalar_value(form.erase) == 0.0:

        def step(pen: Pen) -> str:
            keep = "" if form.keep.value == 1.0 else pen.expr(form.keep, 2)
            return f"W_t = {pen.join(keep, 'W_{t-1}')}{pen.summand('-', form.rate, 'g')}"

        line = both({}, step)
    text = "g = the task's gradient at W_{t-1}, summed over the tokens since the last commit"
    latex = r"g = \sum_{i \text{ since the last commit}} \nabla_W \mathcal{L}_{\mathrm{task}}(W_{t-1}; x_i)"
    return (line,), (Formula(text, latex),)


def _rule_line(formula: str) -> Formula:
    """A rule without closed form, as its formula."""
    return Formula(formula, rf"\texttt{{{escaped(formula)}}}")


def escaped(text: str) -> str:
    """A text that stands in LaTeX as it is."""
    return text.replace("\\", r"\backslash ").replace("_", r"\_").replace("^", r"\^{}").replace("&", r"\&")


# --- names -----------------------------------------------------------------------------------


def _names(memory: Memory, write: Write, n: int, called: Called) -> dict[str, str]:
    """What the symbols of term `n` are called."""
    term, (spoken, meant) = write.terms[n], called
    suffix = str(n + 1) if len(write.terms) > 1 else ""
    key, target = told_pair(term, {**meant, **spoken})
    names = dict(spoken)
    names |= {name: authors(spoken.get(value.name, value.name)) for name, value in term.rule.arguments}
    named = key.isidentifier() or key == "0" or is_one(term, key)
    names |= {"key": authors(key) if named else f"k{suffix}"}
    plain = target.isidentifier() or _is_number(target)
    names |= {"target": authors(target) if plain else f"vhat{suffix}"}
    if memory.function is not None:
        older = "_c" if write.base_every > 1 else ""
        names |= {w.name: f"{own_name(memory, w.name)}{older}" for w in memory.function.weights}
    return names


def own_name(memory: Memory, weight: str) -> str:
    """What a weight is called: the memory itself if it is one matrix."""
    return memory.name if _is_matrix(memory) else weight


def _is_matrix(memory: Memory) -> bool:
    return memory.function is not None and [w.name for w in memory.function.weights] == ["weight"]


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).removeprefix("-").isdigit()


def _defined(term: Term, n: int, count: int, called: Called) -> list[Formula]:
    """What `k` and `vhat` are where key and target are written as expressions."""
    suffix = str(n + 1) if count > 1 else ""
    found = []
    for name, latex, text in zip(
        ("k", "vhat"), ("k", r"\hat{v}"), told_pair(term, {**called[1], **called[0]}), strict=True
    ):
        if not text.isidentifier() and not _is_number(text):
            found.append(
                Formula(f"{name}{suffix}_t = {text}", rf"{latex}_{{{suffix}t}} = \texttt{{{escaped(text)}}}")
            )
    return found


def _seen(memory: Memory, write: Write) -> tuple[Formula, ...]:
    """Which state the gradient sees, if it is an older one."""
    if write.base_every <= 1:
        return ()
    commit = write.base_every == memory.clock.every
    when = "the last commit" if commit else f"the last multiple of {write.base_every} tokens"
    weights = memory.function.weights if memory.function is not None else ()
    older = both({}, lambda pen: ", ".join(pen.name(f"{own_name(memory, w.name)}_c", "") for w in weights))
    return (Formula(f"{older.text}: as of {when}", rf"{older.latex}: \text{{as of {when}}}"),)


# --- one matrix, in closed form --------------------------------------------------------------


def _closed(
    memory: Memory, write: Write, update: UpdateClass, scale: Update | None, names: list[dict[str, str]]
) -> tuple[Formula, ...]:
    count = 2 if update.terms[0].online is not None and update.terms[0].online.momentum else 1
    lines = []
    for index in range(count):
        text, latex = (
            _closed_side(memory, write, update, scale, [pens(n)[side] for n in names]) for side in (0, 1)
        )
        lines.append(Formula(text[index], latex[index]))
    return tuple(lines)


def _closed_side(
    memory: Memory, write: Write, update: UpdateClass, scale: Update | None, mine: list[Pen]
) -> list[str]:
    """`S_t = S_{t-1} (a I - b k k^T) + v k^T`, with a line for a momentum in front."""
    parts = [(p, t.online) for p, t in zip(mine, update.terms, strict=True) if t.online is not None]
    pen, form = parts[0]
    old = _scaled(pen, memory, scale)
    erasing = [(p, f.erase, p.expr(f.x, 2)) for p, f in parts if scalar_value(f.erase) != 0.0]
    pulls = [(p, rate, x, x) for p, rate, x in erasing]
    push = "".join(
        _signed(p, p.expr(f.value, 1), p.expr(f.x, 2)) for p, f in parts if p.names["target"] != "0"
    )
    if write.toward == "init" and write.retain is not None:
        push = f" + {pen.join(f'(1 - {pen.name(write.retain.name)})', pen.name(memory.name, '0'))}{push}"
    keep = "" if form.keep.value == 1.0 else pen.expr(form.keep)
    if form.momentum is None:
        return [Recurrence(pen, memory.name, old, pulls, push).line(write, keep)]
    beta, read = form.momentum
    pulled = "".join(p.summand("-", rate, old, p.outer(x, x)) for p, rate, x, _ in pulls)
    first = f"m_t = {pen.join(pen.expr(beta, 2), 'm_{t-1}')}{pulled}{push}"
    added = pen.summand("+", read, "m_t")
    return [first, Recurrence(pen, memory.name, old, (), added).line(write, keep)]


def _of_pieces(
    memory: Memory,
    write: Write,
    scale: Update | None,
    names: list[dict[str, str]],
    terms: Sequence[Sequence[Piece]],
) -> Formula:
    """`S_t = S_{t-1} (a I - s c^T) + v c^T`: what is asked along one vector is taken away along another."""
    made = []
    for side in (0, 1):
        mine = [pens(n)[side] for n in names]
        parts = [(pen, p) for pen, pieces in zip(mine, terms, strict=True) for p in pieces]
        pulls = [
            (pen, p.erase, pen.expr(p.seen, 2), pen.expr(p.along, 2))
            for pen, p in parts
            if p.erase is not None and p.seen is not None
        ]
        push = "".join(_signed(pen, pen.expr(p.add, 1), pen.expr(p.along, 2)) for pen, p in parts)
        old = _scaled(mine[0], memory, scale)
        made.append(Recurrence(mine[0], memory.name, old, pulls, push).line(write, ""))
    return Formula(*made)


def _along_values(
    memory: Memory,
    write: Write,
    scale: Update | None,
    names: list[dict[str, str]],
    terms: Sequence[Sequence[Piece]],
) -> Formula:
    """`S_t = (a I - s c^T) S_{t-1} + v k^T`: the same from the left, along the values."""
    made = []
    for side in (0, 1):
        mine = [pens(n)[side] for n in names]
        pen = mine[0]
        old = _scaled(pen, memory, scale)
        erased, push = "", ""
        for own, pieces in zip(mine, terms, strict=True):
            for p in pieces:
                along = own.expr(p.along, 2)
                if p.erase is not None and p.seen is not None:
                    erased += own.summand("-", p.erase, own.outer(along, own.expr(p.seen, 2)))
                if own.names["key"] != "0":
                    push += f" + {own.outer(along, own.expr(p.add, 2))}"
        gate = "" if write.retain is None else pen.name(write.retain.name)
        kept = pen.join(gate, "I")
        made.append(f"{pen.name(memory.name)} = {pen.join(f'({kept}{erased})', old)}{push}")
    return Formula(*made)


def _scaled(pen: Pen, memory: Memory, scale: Update | None) -> str:
    """The memory in front of the write, behind its gate."""
    old = pen.name(memory.name, "t-1")
    return old if scale is None else pen.gate(scale.value.name, scale.axis, old)


def _signed(pen: Pen, value: str, key: str) -> str:
    """` + v k^T`, or with a minus if the value begins with one."""
    if value in ("0", "-0"):
        return ""
    sign, body = ("-", value[1:]) if value.startswith("-") else ("+", value)
    return f" {sign} {pen.outer(body, key)}"


# --- any map, weight by weight ---------------------------------------------------------------


def _by_weight(memory: Memory, write: Write, update: UpdateClass, called: list[dict[str, str]]) -> Lines:
    """One line for all weights that step alike, then what `z`, `d` and `r` are for each."""
    alike: dict[Formula, list[str]] = {}
    where: list[Formula] = []
    for n, term in enumerate(update.terms):
        names, rule = called[n], write.terms[n].rule
        state = "D" if write.toward == "init" else own_name(memory, "W")
        short = shared(term.gradient.gradients if term.gradient else (), names)
        where += [_letter(names, letter, part) for letter, part in short.letters]
        for grad, analysis in zip(short.gradients, term.rules, strict=True):
            dual = mirror_form(rule, grad.weight.shape) if analysis.form is None else None
            if dual is not None and grad.x is not None and write.retain is None and not write.at_commit:
                made = _dual_lines(names, dual, state)
                where += made[2:]
                made = made[:2]
            else:
                made = _weight_lines(
                    names, write, grad, analysis.form, (state, rule_formula(rule, short=True))
                )
            for line in made:
                alike.setdefault(line, []).append(grad.name)
            where += _letters(names, grad, analysis.form or dual, own_name(memory, grad.name))
    lines = list(alike)
    if write.toward == "init":
        name = own_name(memory, "W")
        lines.append(both({}, lambda pen: f"{pen.name(name)} = {pen.name(name, '0')} + {pen.name('D')}"))
    several = memory.function is not None and len(memory.function.weights) > 1
    if several and memory.function is not None:
        each = ", ".join(w.name for w in memory.function.weights)
        where.insert(0, Formula(f"W: each of {each}", rf"W \in \{{{each}\}}"))
    extra = _clauses(write, called)
    return tuple(lines), (*dict.fromkeys(where), *extra)


def _weight_lines(
    names: Mapping[str, str],
    write: Write,
    grad: WeightGradient,
    form: RuleForm | None,
    shown: tuple[str, str],
) -> list[Formula]:
    """The step of one weight; `shown` are the letter of the state and the rule's own formula."""
    state, formula = shown
    if form is None or (grad.x is None and (form.momentum or scalar_value(form.taken) != 0.0)):
        return [_gated_rule(names, write, formula)]
    names = {**names, form.x.name: "z"}
    rate = _lettered(form.rate, form)
    gradient = ("d", "z") if grad.x is not None else None

    def step(pen: Pen) -> str:
        pulls = [] if scalar_value(form.erase) == 0.0 else [(pen, _lettered(form.erase, form), "z", "z")]
        still = form.momentum is not None and scalar_value(form.rate) == 0.0
        push = "" if still else pen.summand("-", rate, pen.outer(*gradient) if gradient else "g")
        if form.momentum is not None:
            push += pen.summand("+", form.momentum.read, "m_t")
        keep = "" if form.keep.value == 1.0 else pen.expr(form.keep)
        return Recurrence(pen, state, pen.style.symbol(state, "t-1"), pulls, push).line(write, keep)

    if form.momentum is None:
        return [both(names, step)]
    momentum = form.momentum

    def filtered(pen: Pen) -> str:
        last = pen.join(pen.expr(momentum.beta, 2), "m_{t-1}")
        if scalar_value(momentum.erase) != 0.0:
            old = pen.style.symbol(state, "t-1")
            last += pen.summand("-", momentum.erase, old, pen.outer("z", "z"))
        return f"m_t = {last}{pen.summand('-', momentum.rate, pen.outer('d', 'z'))}"

    return [both(names, filtered), both(names, step)]


def _dual_lines(names: Mapping[str, str], dual: MirrorForm, state: str) -> list[Formula]:
    """The step of a dual, the weight that is made of it, and where it starts."""
    slot, rate = dual.slot, _lettered(dual.rate, dual)

    def step(pen: Pen) -> str:
        kept = pen.join(pen.expr(dual.keep, 2), f"{slot}_{{t-1}}")
        return f"{slot}_t = {kept}{pen.summand('-', rate, pen.outer('d', 'z'))}"

    lines = [
        both({**names, dual.x.name: "z"}, step),
        both({**names, dual.dual.name: slot}, lambda pen: f"{state}_t = {pen.expr(dual.link)}"),
    ]
    return [*lines, Formula(f"{slot}_0 = {state}_0", f"{slot}_0 = {state}_0")] if dual.seeded else lines


def _gated_rule(names: Mapping[str, str], write: Write, formula: str) -> Formula:
    """The rule as it is written; retention acts first."""
    if write.retain is None:
        return _rule_line(formula)
    gate = names.get(write.retain.name, f"{write.retain.name}_t")
    text = f"W = {gate} * W; {formula}"
    # The rule is given the distance from the start.
    return _rule_line(re.sub(r"\bW\b", "D", text) if write.toward == "init" else text)


def _rate_letter(form: RuleForm | MirrorForm) -> str:
    """`r` for a rate that is more than a name or a number."""
    return "r" if form.rate.args and form.rate.value is None else ""


def _lettered(rate: Expr, form: RuleForm | MirrorForm) -> Expr:
    """A rate of the rule, as `r` if that stands for it."""
    return symbol("r") if rate is form.rate and _rate_letter(form) else rate


def _letters(
    names: Mapping[str, str], grad: WeightGradient, form: RuleForm | MirrorForm | None, called: str
) -> list[Formula]:
    """What `r`, `z` and `d` are, or the gradient `g` as a whole."""
    found = []
    if form is not None and grad.x is not None and _rate_letter(form):
        inner = {**names, form.x.name: "z"}
        found.append(both(inner, lambda pen: f"r = {pen.expr(form.rate)}"))
    if grad.x is None or grad.dy is None:
        whole = grad.expression
        return [*found, both(names, lambda pen: f"{pen.style.symbol(called, '')}: g = {pen.expr(whole)}")]
    x, dy = grad.x, grad.dy

    def pair(pen: Pen) -> str:
        slope = pen.expr(dy)
        return f"{pen.style.symbol(called, '')}: z = {pen.expr(x)}, d = {slope}"

    lines = [both(names, pair)]
    if form is None:
        lines.append(both(names, lambda pen: f"g = {pen.outer('d', 'z')}"))
    return [*found, *lines]


def _letter(names: Mapping[str, str], letter: Expr, part: Expr) -> Formula:
    """What a letter stands for."""
    return both(names, lambda pen: f"{pen.expr(letter)} = {pen.expr(part)}")


def _clauses(write: Write, called: list[dict[str, str]]) -> list[Formula]:
    """What else the write says."""
    said = []
    for names, term in zip(called, write.terms, strict=True):
        if term.window > 1:
            said.append(f"summed over the last {term.window} tokens")
        if term.weight is not None:
            said.append(f"each token weighted by {names.get(term.weight.name, term.weight.name)}")
    if write.at_commit:
        said.append("one step per chunk: gradients of its tokens summed, rate and gates of its last")
    if write.project is not None:
        said.append(f"then projected by {write.project}")
    return [Formula(text, rf"\text{{{text}}}") for text in dict.fromkeys(said)]
