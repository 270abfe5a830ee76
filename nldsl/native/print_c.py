"""A program as one function of C that works on a lane, and the loop over lanes around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from nldsl.native.fetches import fetches
from nldsl.native.formulas import number
from nldsl.native.graph import RUNNING, Product, Program, Routine, View
from nldsl.native.in_place import in_place
from nldsl.native.loops import LoopPrinter
from nldsl.native.nests import Nest, nested
from nldsl.native.rooms import laid_out
from nldsl.native.schedule import Loop, Stage, kept_in_loops, scheduled
from nldsl.native.team import LONG, TEAM, many, shares
from nldsl.native.tidy import NO_ROWS, Rows, tidied
from nldsl.native.turned import TURN, turned

AXES = 2
"""Lane axes of a call; fewer are filled up with axes of size 1."""
FRAME = """
/* Rooms that nobody works in. A thread takes one for a call and leaves it to the next: there are never
   more than there have been threads at once, however many come and go. */
enum { NL_ROOMS = 64 };
static char *nl_rooms[NL_ROOMS];

static char *nl_take_room(void) {
  for (int i = 0; i < NL_ROOMS; i++) {
    char *room = __atomic_exchange_n(&nl_rooms[i], 0, __ATOMIC_ACQ_REL);
    if (room) return room;
  }
  return aligned_alloc(64, ROOM);
}

static void nl_leave_room(char *room) {
  for (int i = 0; i < NL_ROOMS; i++) {
    char *none = 0;
    if (__atomic_compare_exchange_n(&nl_rooms[i], &none, room, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) return;
  }
  free(room);
}

/* All turns of one lane. */
static void nl_turns(char *room, long n, long arrays, const long *sizes, char **given, const long *turns) {
  const long second = sizes[1], count = turns ? turns[0] : 1;
  for (long turn = 0; turn < count; turn++) {
    char *at[ARRAYS], *next[ARRAYS];
    for (long i = 0; i < arrays; i++) {
      next[i] = 0;
      at[i] = given[i] + n / second * sizes[2 + 2 * i] + n % second * sizes[3 + 2 * i];
      if (!turns) continue;
      const long step = turns[1 + 2 * i], change = turns[2 + 2 * i];
      at[i] += step * (change < 0 ? turn : (turn + change) & 1);
      if (change < 0 && step && turn + 1 < count) next[i] = at[i] + step;
    }
    /* What this turn makes, or another name has, is near as it is. */
    for (long i = 0; i < arrays; i++)
      for (long j = 0; next[i] && j < arrays; j++)
        if (next[i] == at[j] || (j < i && next[i] == next[j])) next[i] = 0;
    lane(room, at, next);
  }
}

/* Some lanes, one after the other; whether there is no room for them. */
static int nl_lanes(long from, long to, long arrays, const long *sizes, char **given, const long *turns) {
  char *room = nl_take_room();
  for (long n = from; room && n < to; n++) nl_turns(room, n, arrays, sizes, given, turns);
  if (room) nl_leave_room(room);
  return !room;
}

/* turns: how many, one behind the other; then of every array how far it moves from one to the next, and 0 or
   1 where it moves back every second time, starting there, else -1. */
int step(long arrays, const long *sizes, char **given, const long *turns, int threads) {
  const long lanes = sizes[0] * sizes[1];
  int failed = 0;
  /* Where most threads would have no lane they share what is long in one lane after the other; not in a
     region of one thread, inside which threads would be made anew for every loop. */
  if (SHARES && 2 * lanes <= threads) nl_team = threads;
  if (nl_team > 1 || threads == 1 || lanes <= 1) failed = nl_lanes(0, lanes, arrays, sizes, given, turns);
  else {
    const int parts = threads < lanes ? threads : (int)lanes;
#pragma omp parallel for num_threads(parts) reduction(|: failed)
    for (int part = 0; part < parts; part++)
      failed |= nl_lanes(lanes * part / parts, lanes * (part + 1) / parts, arrays, sizes, given, turns);
  }
  nl_team = 1;
  return failed;
}
"""


class Text(NamedTuple):
    """C, and the program it computes, whose outputs say what every array after the inputs is."""

    text: str
    program: Program
    room: int


def printed(program: Program, head: str, rows: Rows = NO_ROWS) -> Text:
    """The C of a program behind the text of the kernels."""
    program = tidied(program, rows)
    stages = scheduled(turned(program.operations))
    in_place(stages)
    printer = _Printer(program, nested(stages), kept_in_loops(stages))
    body = "\n".join(f"  {line}" for line in printer.lines())
    arrays = len(program.inputs) + sum(v is not None for v in program.outputs)
    # `aligned_alloc` may refuse what is no multiple of the alignment.
    size = sum((n + 63) // 64 * 64 for n in (printer.room, printer.pack, 64))
    text = (
        f"{head}\n{printer.functions()}static void lane(char *room, char **at, char **next) {{\n{body}\n}}\n"
    )
    frame = FRAME.replace("ARRAYS", str(max(arrays, 1))).replace("ROOM", str(size))
    return Text(text + frame.replace("SHARES", str(int(printer.shares))), program, size)


class _Printer:
    def __init__(self, program: Program, stages: list[Stage | Nest], inside: set[int]) -> None:
        self.program, self.stages, self.inside = program, stages, inside
        self.places, self.room = laid_out(stages, self.inside)
        self.pack = 0
        self.products = sum(isinstance(s, Product) for s in stages)
        self.shares = shares(stages)
        self.slots = {i: n for n, i in enumerate(self._outputs(), len(program.inputs))}
        made = (replace(fetch, index=self.slots[fetch.index]) for fetch in fetches(program.outputs))
        self.fetches = [*fetches(program.inputs), *made]

    def _outputs(self) -> list[int]:
        return [i for i, v in enumerate(self.program.outputs) if v is not None]

    def functions(self) -> str:
        """What stands in front of the lane."""
        return ""

    def named(self, view: View) -> str:
        """A pointer to the first number of a view's buffer."""
        buffer, kind = view.buffer, view.buffer.kind
        if buffer.place == "input":
            found = f"given{buffer.index}"
        elif buffer.place == "output":
            found = f"made{buffer.index}"
        else:
            found = f"(({kind} *)(room + {self.places[id(buffer)]}))"
        return f"({found} + y * {view.along})" if view.along else found

    def lines(self) -> Iterator[str]:
        """The stages, one behind the other."""
        yield from self._pointers()
        done = 0
        for stage in self.stages:
            if isinstance(stage, Nest):
                yield f"for (long y = 0; y < {stage.count}; y++) {{"
                for inner in stage.stages:
                    yield from (f"  {line}" for line in self._stage(inner))
                yield "}"
            else:
                if isinstance(stage, Product):
                    yield from self._fetched(done)
                    done += 1
                yield from self._stage(stage)

    def _pointers(self) -> Iterator[str]:
        """Arrays by names: of what is looked up in a loop the C compiler does not know that it stays."""
        for view in self.program.inputs:
            if view is not None:
                kind, index = view.buffer.kind, view.buffer.index
                yield f"const {kind} *const given{index} = (const {kind} *)at[{index}];"
        for index, slot in self.slots.items():
            view = self.program.outputs[index]
            assert view is not None
            kind = view.buffer.kind
            yield f"{kind} *const made{index} = ({kind} *)at[{slot}];"

    def _fetched(self, done: int) -> Iterator[str]:
        """In front of every product its share of what the next turn needs."""
        yield from filter(None, (fetch.share(done, self.products) for fetch in self.fetches))

    def _stage(self, stage: Stage) -> Iterator[str]:
        if isinstance(stage, Loop):
            if 0 in stage.domain:
                return
            printer = LoopPrinter(stage, self.named, self.inside, self.program.real, self.shares)
            yield "{"
            yield from (f"  {line}" for line in printer.lines())
            yield "}"
        elif isinstance(stage, Product):
            yield from self._product(stage)
        elif isinstance(stage, Routine):
            yield from self._routine(stage)

    def _batched(self, *views: View, inner: int = 2) -> tuple[str, list[str], str]:
        """Loops over all axes but the last, with a pointer to every view's part."""
        shape = views[0].shape[: len(views[0].shape) - inner]
        head, tail = "", ""
        terms: list[list[str]] = [[str(v.offset)] for v in views]
        for axis, n in enumerate(shape):
            if n == 1:
                continue
            head += f"for (long x{axis} = 0; x{axis} < {n}; x{axis}++) "
            for own, view in zip(terms, views, strict=True):
                if view.strides[axis]:
                    own.append(f"x{axis} * {view.strides[axis]}")
        pointers = [f"{self.named(v)} + {' + '.join(t)}" for v, t in zip(views, terms, strict=True)]
        return head + "{", pointers, "}" + tail

    def _product(self, p: Product) -> Iterator[str]:
        (*_, m, k), n = p.a.shape, p.b.shape[-1]
        if 0 in p.out.shape:
            return
        real, beta = self.program.real, p.beta if p.start is not None else 0.0
        same = p.start is not None and p.start.at() == p.out.at()
        views = [p.out, p.a, p.b] if p.start is None or same else [p.out, p.a, p.b, p.start]
        head, pointers, tail = self._batched(*views)
        yield head
        if len(views) == 4:
            assert p.start is not None
            down, right = p.start.strides[-2:]
            yield f"  const {real} *from = {pointers[3]}; {real} *to = {pointers[0]};"
            if self.shares and m * n >= LONG:
                yield f"  #pragma omp parallel for {TEAM}"
            yield f"  for (long i = 0; i < {m}; i++) for (long j = 0; j < {n}; j++)"
            yield f"    to[i * {p.out.strides[-2]} + j] = from[i * {down} + j * {right}];"
        self.pack = max(self.pack, 8 * (k + 16) * (n + 64))
        pack = f"(real *)(room + {(self.room + 63) // 64 * 64})"
        numbers = f"{number(p.alpha, real)}, {number(beta, real)}"
        a = f"{pointers[1]}, {p.a.strides[-2]}, {p.a.strides[-1]}"
        b = f"{pointers[2]}, {p.b.strides[-2]}, {p.b.strides[-1]}"
        name = f"nl_product{'_shared' if self.shares and many(p) else ''}"
        yield f"  {name}({m}, {n}, {k}, {a}, {b}, {pointers[0]}, {p.out.strides[-2]}, {numbers}, {pack});"
        yield tail

    def _routine(self, r: Routine) -> Iterator[str]:
        if r.name in RUNNING:
            sign, start = RUNNING[r.name]
            head, (to, given), tail = self._batched(r.out, r.given, inner=1)
            yield head
            kind = r.out.buffer.kind
            yield f"  {kind} s = {start}; {kind} *to = {to}; const {r.given.buffer.kind} *from = {given};"
            yield f"  for (long i = 0; i < {r.out.shape[-1]}; i++)"
            yield f"    to[i * {r.out.strides[-1]}] = s {sign}= from[i * {r.given.strides[-1]}];"
            yield tail
            return
        if r.name == TURN:
            head, (to, given), tail = self._batched(r.out, r.given)
            (down, _), (step, _) = r.given.strides[-2:], r.out.strides[-2:]
            rows, columns = r.given.shape[-2:]
            name = f"{TURN}{'_shared' if self.shares and rows * columns >= LONG else ''}"
            yield f"{head} {name}({rows}, {columns}, {given}, {down}, {to}, {step}); {tail}"
            return
        size = r.out.shape[-1]
        self.pack = max(self.pack, 8 * (4 * size * size + 4096))
        pack = f"(real *)(room + {(self.room + 63) // 64 * 64})"
        head, (to, given), tail = self._batched(r.out, r.given)
        yield head
        yield f"  {r.name}({size}, {given}, {r.given.strides[-2]}, {to}, {r.out.strides[-2]}, {pack});"
        yield tail
