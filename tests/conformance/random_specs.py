"""Random programs: memories of several kinds and clocks, read, written and decayed in any order.

Rates are small and keys have unit length, so that nothing grows and comparisons stay sharp.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

MAPS = """
map biased(z) { A = weight(3, dim(z)); c = weight(3); B = weight(dim(z), 3); return z + B @ tanh(A @ z + c) }
map normed(z) { return z + norm(linear(z)) }
map twice(z) { A = weight(dim(z), dim(z)); return z + A @ silu(A @ z) }
objective weird(pred, target) { e = pred - target; return sum(log(1 + e ** 2)) + 0.1 * mean(pred * target) }
objective written_l2(pred, target) { return 0.5 * dot(pred, pred) - dot(pred, target) }
rule averaged(lr, beta = 0.8) {
  memory m, s = like(W)
  m = beta * m + (1 - beta) * g
  s = beta * s + (1 - beta) * g ** 2
  W = W - lr * unbias(m, beta) / (sqrt(s + 0.01) + 0.1)
}
rule slowing(lr) { W = 0.99 * W - lr * g / step }
"""
OBJECTIVES = ("l2", "dot", "huber(delta = 0.5)", "lp(p = 3)", "weird", "written_l2")
PLAIN_RULES = ("gd", "momentum", "averaged", "slowing")
MATRIX, LEARNED = ("matrix()", "matrix() init learned"), ("mlp(1)", "residual_mlp()", "biased()", "normed()")


@dataclass
class Writer:
    """A block in the making; `draw` picks from a strategy."""

    draw: st.DrawFn
    heads: int = 1
    size: int = 4
    per_head: dict[str, bool] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    """Memories whose every weight is used as `W @ z`."""

    matrices: set[str] = field(default_factory=set)
    values: list[str] = field(default_factory=lambda: ["x"])
    lines: list[str] = field(default_factory=list)
    declared: list[str] = field(default_factory=list)

    def pick(self, *options: str) -> str:
        return self.draw(st.sampled_from(options))

    def maybe(self, chance: int = 3) -> bool:
        return self.draw(st.integers(0, chance - 1)) == 0

    # --- declarations ------------------------------------------------------------------------

    def declare(self, name: str) -> None:
        kind = self.pick(*MATRIX, *MATRIX, *LEARNED, "twice()")
        per_head = self.draw(st.booleans())
        every = self.draw(st.sampled_from([1, 1, 2, 3, 4]))
        unit = "token" if every == 1 else "tokens"
        where = f" per head({self.heads})" if per_head else ""
        kind, _, init = kind.partition(" init ")
        init = init or self.pick("", "", "", 'learned("first")') if kind != "matrix()" else init
        line = f"memory {name} = {kind}{where}" + (f" init {init}" if init else "")
        line += self.pick("", "", "", f" reset every {6 * every} tokens")
        self.declared.append(f"level l{name} every {every} {unit} {{ {line} }}")
        self.per_head[name] = per_head
        if kind not in ("twice()", "biased()"):
            self.plain.add(name)
        if kind == "matrix()":
            self.matrices.add(name)

    # --- values (all of them vectors of `size`) ----------------------------------------------

    def vector(self, depth: int = 1) -> str:
        """A vector of `size` channels."""
        known = self.pick(*self.values)
        if depth == 0:
            return known
        inner = self.vector(depth - 1)
        return self.pick(
            known,
            f"linear({inner})",
            f"silu({inner})",
            f"conv({inner}, 2)",
            f"shift({inner})",
            f"norm({inner})",
            f"({inner} + {known})",
            f"({inner} * {self.scalar()})",
            f"merge(split({inner}, {self.heads}) * {self.number_per_head()})",
            f"detach({known}) + {inner}",
            f"{inner} * sigmoid(weight({self.size}))",
            f"{inner} + 0.5",
        )

    def scalar(self) -> str:
        return self.pick(
            f"tanh(mean({self.pick(*self.values)}))", "0.5", f"sigmoid(dot({self.pick(*self.values)}, x))"
        )

    def number_per_head(self) -> str:
        return self.pick(
            f"sigmoid(linear({self.pick(*self.values)}, {self.heads}))",
            f"sigmoid(weight({self.heads}))",
            f"sigmoid(mean(split({self.pick(*self.values)}, {self.heads})))",
        )

    def number(self, memory: str) -> str:
        """A number between zero and one, for one memory."""
        options = ["0.9", f"sigmoid(mean({self.pick(*self.values)}))", "sigmoid(mean(weight(3)))"]
        return self.pick(*options, *([self.number_per_head()] * 3 if self.per_head[memory] else []))

    def gate(self, memory: str) -> str:
        if memory in self.matrices and self.maybe():
            channels = f"sigmoid(linear({self.pick(*self.values)}))"
            return self.pick(channels, f"values({channels})")
        return self.number(memory)

    def key(self, memory: str) -> str:
        vector = self.vector()
        return f"l2norm(split({vector}, {self.heads}))" if self.per_head[memory] else f"l2norm({vector})"

    def read(self, memory: str) -> str:
        answer = f"{memory}[{self.pick(self.key(memory), self.vector())}]"
        return f"merge({answer})" if self.per_head[memory] else answer

    # --- statements --------------------------------------------------------------------------

    def rule(self, memory: str, memories: list[str]) -> str:
        linear = all(m in self.plain for m in memories)
        name = self.pick(*PLAIN_RULES, "gd", "gd", *(["dgd"] * 3 if linear else []))
        rate = f"0.1 * {self.number(memory)}" if self.maybe(2) else "0.1"
        if name == "dgd":
            return f'dgd(lr = {rate}, rate = "{self.pick("raw", "normalised", "proximal")}")'
        return f"{name}(lr = {rate})"

    def clauses(self, memory: str) -> str:
        text = ""
        if self.maybe(2):
            text += f" retain {self.gate(memory)}"
            if self.maybe(2):
                text += " toward init"
        if self.maybe(5):
            text += f" gradient every {self.pick('1 token', '3 tokens', '6 tokens')}"
        if self.maybe(6):
            text += self.pick(" at commit", " at commit project rownorm")
        return text

    def term(self, memory: str, target: str, memories: list[str] | None = None) -> str:
        objective = self.pick(*OBJECTIVES, "l2", "dot")
        rule = self.rule(memory, memories or [memory])
        window = f" over {self.pick('2', '4')} tokens" if self.maybe(5) else ""
        weight = f" weighted {self.number(memory)}" if self.maybe(5) else ""
        return f"[{self.key(memory)}] <- {target} minimize {objective}{window}{weight} by {rule}"

    def target(self) -> str:
        return self.pick(self.vector(), self.vector(), f"tanh({self.vector()})", "0.5", "tanh(mean(x))")

    def statement(self, memories: list[str]) -> None:
        memory = self.pick(*memories)
        kind = self.pick("value", "read", "read", "write", "write", "write", "scale", "two", "each", "add")
        if kind in ("value", "read"):
            fresh = f"v{len(self.values)}"
            self.lines.append(
                f"{fresh} = {self.vector(2) if kind == 'value' else f'tanh({self.read(memory)})'}"
            )
            self.values.append(fresh)
        elif kind == "write":
            self.lines.append(f"{memory}{self.term(memory, self.target())}{self.clauses(memory)}")
        elif kind == "scale":
            self.lines.append(f"{memory} *= {self.gate(memory)}")
        elif kind == "add":
            self.lines.append(f"{memory} += {self.pick('0.01', '0.01 * mean(x)')}")
        elif kind == "two":
            terms = "; ".join(self.term(memory, self.target()) for _ in range(2))
            self.lines.append(f"write {memory} {{ {terms} }}{self.clauses(memory)}")
        else:
            alike = [m for m in memories if self.per_head[m] == self.per_head[memory]]
            target = f"tanh(self[{self.key(memory)}])" if self.maybe(2) else self.target()
            term, gate = self.term(memory, target, alike), self.number(memory)
            body = f"{term} retain {gate}{self.pick('', ' toward init')}"
            self.lines.append(f"write each of {', '.join(alike)} {{ {body} }}")

    def text(self, memories: list[str]) -> str:
        results = [*self.values, *(self.read(m) for m in memories)]
        body = "\n  ".join([*self.declared, *self.lines, f"return {' + '.join(results)}"])
        return f"{MAPS}\nblock random(x) {{\n  {body}\n}}\n"


@st.composite
def programs(draw: st.DrawFn) -> tuple[str, int]:
    """(text of a block `random(x)`, channels of `x`)."""
    heads, size = draw(st.sampled_from([(1, 3), (2, 4), (2, 6), (3, 3)]))
    writer = Writer(draw, heads, size)
    memories = ["A", "B", "C"][: draw(st.integers(1, 3))]
    for memory in memories:
        writer.declare(memory)
    for memory in memories:
        writer.lines.append(f"{memory}{writer.term(memory, writer.target())}{writer.clauses(memory)}")
    for _ in range(draw(st.integers(0, 4))):
        writer.statement(memories)
    writer.lines = draw(st.permutations(writer.lines)) if not _ordered(writer) else writer.lines
    return writer.text(memories), size


def _ordered(writer: Writer) -> bool:
    """Whether a value is used by a later line: then the lines keep their order."""
    return len(writer.values) > 1
