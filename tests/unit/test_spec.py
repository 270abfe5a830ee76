"""Elaboration: every text of the library, paths and shapes of two, and the rules of the language."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nldsl
from nldsl.diagnostics import DiagnosticBag
from nldsl.diagnostics.render import render_all
from nldsl.spec import check, elaborate, load
from nldsl.spec.program import Apply, Block, Call, Program, Read, Repeat, TaskWrite, Update, Write
from nldsl.spec.walk import parameters_of

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((ROOT / "specs").rglob("*.nl"))
MODELS = sorted(p.stem for p in (ROOT / "specs" / "models").glob("*.nl"))


def program(source: str, block: str | None = None, **arguments: Any) -> Program:
    """The program of a source that has no errors."""
    bag = DiagnosticBag()
    found = elaborate(load(source, bag), block=block, arguments=arguments, bag=bag)
    assert found is not None, render_all(bag.items)
    return found


def codes(text: str) -> list[str]:
    """Codes of the errors of a text."""
    return [d.code for d in check(text) if d.severity == "error"]


def statements(block: Block, kind: type) -> Iterator[Any]:
    """Statements of one kind, in callees too."""
    for statement in block.body:
        if isinstance(statement, kind):
            yield statement
        if isinstance(statement, Call | Repeat):
            yield from statements(statement.block, kind)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_library_text_has_no_findings(path: Path) -> None:
    assert check(path) == []


@pytest.mark.parametrize("name", MODELS)
def test_library_model_elaborates(name: str) -> None:
    found = program(name)
    assert (found.name, found.kind) == (name, "model")
    assert found.root.outputs[0].shape == (256,)
    assert found.train is not None and found.train.groups[0].rule == "muon"
    paths = [p for p, _ in parameters_of(found.root)]
    assert len(paths) == len(set(paths))


def test_gated_deltanet_paths_and_shapes() -> None:
    found = program("gated_deltanet", block="gated_deltanet", x=64)
    shapes = {path: parameter.shape for path, parameter in parameters_of(found.root)}
    assert shapes == {
        "q.linear.weight": (64, 64),
        "q.conv.weight": (64, 4),
        "q.conv.bias": (64,),
        "k.linear.weight": (64, 64),
        "k.conv.weight": (64, 4),
        "k.conv.bias": (64,),
        "v.linear.weight": (64, 64),
        "v.conv.weight": (64, 4),
        "v.conv.bias": (64,),
        "beta.linear.weight": (4, 64),
        "alpha.linear.weight": (4, 64),
        "out.norm.weight": (16,),
        "out.linear.weight": (64, 64),
        "out.linear_2.weight": (64, 64),
    }
    (memory,) = found.root.memories
    assert (memory.heads, memory.key_size, memory.value_size, memory.init) == (4, 16, 16, "zero")
    assert memory.initial == (None,)
    kinds = [type(s).__name__ for s in found.root.body if not isinstance(s, Apply)]
    assert kinds == ["Update", "Write", "Read"]
    (update,) = statements(found.root, Update)
    assert (update.op, update.axis) == ("scale", "scalar")
    (write,) = statements(found.root, Write)
    (term,) = write.terms
    assert (term.objective.name, term.rule.name, term.rule.arguments[0][0]) == ("l2", "gd", "lr")
    assert (term.key.shape, term.target.shape) == ((4, 16), (4, 16))


def test_hope_is_five_memories_and_a_chain() -> None:
    found = program("hope", dim=64, depth=3, heads=2)
    (repeat,) = [s for s in found.root.body if isinstance(s, Repeat)]
    titans, cms = [s.block for s in repeat.block.body if isinstance(s, Call)]
    assert [(m.name, m.level, m.clock.every) for m in titans.memories] == [
        ("Mk", "projections", 16),
        ("Mv", "projections", 16),
        ("Me", "projections", 16),
        ("Ma", "projections", 16),
        ("M", "recall", 64),
    ]
    assert [(m.name, m.level, m.clock.every) for m in cms.memories] == [
        ("F[0]", "f[0]", 16),
        ("F[1]", "f[1]", 64),
        ("F[2]", "f[2]", 256),
    ]
    paths = {p for p, _ in parameters_of(found.root)}
    assert {
        "blocks[2].self_modifying_titans.Mk.W1",
        "blocks[0].self_modifying_titans.eta.readout.bias",
        "blocks[1].cms.F[2].W2",
        "blocks[1].cms.x[1].norm.weight",
        "blocks[0].x.norm.weight",
        "x.embed.weight",
        "out.head.weight",
    } <= paths
    assert found.train is not None and found.train.carry == "exact"


def test_write_each_reads_everything_before_it_writes() -> None:
    body = program("hope").root
    titans = next(b for b in _blocks(body) if b.name == "self_modifying_titans")
    kinds = [type(s).__name__ for s in titans.body]
    first = kinds.index("Write")
    assert kinds[first : first + 5] == ["Write"] * 5
    assert "Read" not in kinds[first:]
    writes = list(statements(titans, Write))
    assert [w.base_every for w in writes] == [16, 16, 16, 16, 64]
    assert {(w.toward, w.retain_axis) for w in writes} == {("init", "scalar")}


def _blocks(block: Block) -> Iterator[Block]:
    yield block
    for statement in block.body:
        if isinstance(statement, Call | Repeat):
            yield from _blocks(statement.block)


def test_variant_edits_a_level_and_its_base() -> None:
    titans = next(b for b in _blocks(program("hope_tiny").root) if b.name == "self_modifying_titans")
    assert titans.memories[-1].clock.every == 16
    assert [w.base_every for w in statements(titans, Write)] == [16] * 5


def test_variant_adds_groups_in_front() -> None:
    found = program('variant v of hope { "*.conv.*" by sgd(lr = 0.5) every 3 steps; clip 2.0 }')
    assert found.train is not None
    assert found.train.groups[0].selectors == ("*.conv.*",)
    assert (found.train.groups[0].every, found.train.clip) == (3, 2.0)


def test_schedule_is_an_argument_that_moves() -> None:
    found = program(
        "model m(tokens) { return head(embed(tokens, 16, 8), 16) }\n"
        "train m { level outer every 2 steps {\n"
        "  rest by adamw(lr = cosine(2e-2, warmup = 100), decay = 0) } }\n"
    )
    assert found.train is not None
    (group,) = found.train.groups
    assert (group.every, group.arguments, group.level) == (2, (("decay", 0),), "outer")
    ((argument, schedule, options),) = group.schedules
    assert (argument, schedule, dict(options)["warmup"]) == ("lr", "cosine", 100)
    assert group.bound is not None and [n for n, _ in group.bound.arguments] == ["lr"]


def test_block_and_model_share_a_name() -> None:
    assert program("deltanet").kind == "model"
    assert program("deltanet", block="deltanet", dim=32).kind == "block"


def test_block_valued_parameter_from_outside() -> None:
    found = program("hope", mixer="gated_deltanet", depth=1)
    assert any(b.name == "gated_deltanet" for b in _blocks(found.root))


def test_equal_blocks_are_equal_values() -> None:
    text = "block f(x, n = 2) {{ return n * linear(x) }}\nblock g(x) {{ return f(x) + f(x{0}) }}\n"
    same, other = program(text.format(""), block="g", x=8), program(text.format(", 3"), block="g", x=8)
    one, two = statements(same.root, Call)
    assert one.block == two.block and (one.path, two.path) == ("f", "f_2")
    one, two = statements(other.root, Call)
    assert one.block != two.block


def test_size_of_a_memory_comes_from_a_later_write() -> None:
    found = program(
        "block f(x) { level m every 1 token { memory S = matrix() }\n"
        "  y = S[x]; S[x] <- linear(x, 24) by gd(lr = 0.1); return linear(y, dim(x)) }\n",
        x=16,
    )
    assert (found.root.memories[0].key_size, found.root.memories[0].value_size) == (16, 24)
    (read,) = statements(found.root, Read)
    assert read.out.shape == (24,)


def test_memory_that_generates_its_own_keys_is_square() -> None:
    found = program(
        "block f(x) { level m every 4 tokens { memory S = matrix() init learned }\n"
        "  k = S[x]; S[k] <- S[x] by gd(lr = 0.1); return k }\n",
        x=16,
    )
    assert found.root.memories[0].value_size == 16


def test_grouped_queries_share_copies() -> None:
    found = program("attention", x=64, heads=4, groups=2)
    (read,) = statements(found.root, Read)
    assert (read.key.shape, read.out.shape, found.root.memories[0].heads) == ((4, 16), (4, 16), 2)


def test_repeat_carries_what_it_assigns_and_takes_the_rest() -> None:
    found = program("block f(x, z) { repeat 3 { x = x + z * linear(x) }; return x }", x=8, z=8)
    (repeat,) = statements(found.root, Repeat)
    assert (repeat.count, repeat.path, [a.name for a in repeat.args]) == (3, "blocks", ["x", "z"])
    assert [v.name for v in repeat.block.inputs] == ["x", "z"]


def test_gates_know_their_axis() -> None:
    text = (
        "block f(x) {{ level m every 1 token {{ memory S = matrix() per head(2) }}\n"
        "  k = split(linear(x), 2); S *= {0}; S[k] <- x by gd(lr = 0.1); return S[k] }}\n"
    )
    axes = {
        "sigmoid(linear(x, 2))": "scalar",
        "sigmoid(linear(x))": "key",
        "values(sigmoid(linear(x)))": "value",
        "0.9": "scalar",
    }
    for gate, axis in axes.items():
        (update,) = statements(program(text.format(gate), x=16).root, Update)
        assert update.axis == axis, gate


def test_terms_step_together_and_share_clauses() -> None:
    found = program(
        "block f(x) { level m every 4 tokens { memory S = matrix() }\n"
        "  k = linear(x); a = sigmoid(mean(x))\n"
        "  write S { [k] <- 0 by gd(lr = a); [x] <- k minimize dot by gd(lr = 1) }\n"
        "  retain a toward init gradient every 2 tokens\n"
        "  return S[x] }\n",
        x=8,
    )
    (write,) = statements(found.root, Write)
    assert [t.objective.name for t in write.terms] == ["l2", "dot"]
    assert (write.toward, write.base_every, write.terms[0].target.kind) == ("init", 2, "scalar")


def test_omega_window_weights_and_commit() -> None:
    found = program(
        "block f(x) { level m every 8 tokens { memory S = mlp(2) }\n"
        "  w = sigmoid(mean(x))\n"
        "  S[x] <- x over 4 tokens weighted w by muon(lr = 0.1) at commit project rownorm\n"
        "  return S[x] }\n",
        x=8,
    )
    (write,) = statements(found.root, Write)
    assert (write.terms[0].window, write.at_commit, write.project) == (4, True, "rownorm")
    assert [s.name for s in write.terms[0].rule.slots] == ["m"]


def test_read_through_a_solve() -> None:
    found = program(
        "block f(x) { level m every 1 token { memory H, G = matrix() }\n"
        "  k = l2norm(linear(x)); H[k] <- x minimize dot by gd(lr = 1)\n"
        "  G[k] <- k minimize dot by gd(lr = 1)\n"
        "  return H[solve(G, k, ridge = 0.5)] }\n",
        x=8,
    )
    (read,) = statements(found.root, Read)
    assert read.solve == ("G", 0.5, 8)


def test_one_weight_used_twice_is_shared() -> None:
    found = program(
        "model m(tokens, vocab = 16, dim = 8) { E = weight(vocab, dim); x = embed(tokens, vocab, dim)\n"
        "  return E @ (x + transpose(E) @ (E @ x)) }\n"
    )
    assert [p for p, _ in parameters_of(found.root)] == ["E.weight.weight", "x.embed.weight"]


def test_slow_slots_show_their_committed_state() -> None:
    found = program(
        "model m(tokens) { return head(embed(tokens, 16, 8), 16) }\n"
        "train m { rest by m3(lr = 0.1, slow = 4) }\n"
    )
    assert found.train is not None and found.train.groups[0].bound is not None
    slots = {s.name: s for s in found.train.groups[0].bound.slots}
    assert set(slots) == {"m1", "s", "m2"}
    assert (slots["m2"].clock.every, slots["m2"].visible) == (4, "m2_visible")  # type: ignore[union-attr]


def test_task_writes_keep_their_place() -> None:
    cms = next(b for b in _blocks(program("hope").root) if b.name == "cms")
    assert [type(s).__name__ for s in cms.body if isinstance(s, TaskWrite | Read)] == [
        "TaskWrite",
        "Read",
    ] * 3


def test_use_finds_files_beside_the_program(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "layers.nl").write_text("block twice(x) { return 2 * x }\n")
    main = tmp_path / "main.nl"
    main.write_text('use "parts/layers.nl"\nblock f(x) { return twice(x) }\n')
    assert check(main) == []
    (tmp_path / "parts" / "layers.nl").write_text('use "../main.nl"\nblock twice(x) { return 2 * x }\n')
    (cycle,) = [d for d in check(main) if d.severity == "error"]
    assert cycle.code == "NL0317" and "main.nl -> layers.nl -> main.nl" in cycle.message


def test_use_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "x.nl").write_text("block twice(x) { return 2 * x }\n")
    main = tmp_path / "inner" / "main.nl"
    main.write_text('use "../x.nl"\nblock f(x) { return x }\n')
    assert [d.code for d in check(main)] == ["NL0316"]


def test_sources_are_what_takes_part_whatever_was_loaded_before() -> None:
    before = nldsl.program("hope_tiny").sources
    nldsl.program("transformer")
    assert nldsl.program("hope_tiny").sources == before
    names = [name for name, _ in before]
    assert names[0] == "specs/models/hope_tiny.nl"
    assert {"specs/models/hope.nl", "specs/blocks/cms.nl", "specs/rules/muon.nl"} <= set(names)
    assert "specs/models/transformer.nl" not in names


def test_missing_sources_are_findings(tmp_path: Path) -> None:
    assert [d.code for d in check("gated_deltnet")] == ["NL0801"]
    assert "gated_deltanet" in check("gated_deltnet")[0].help
    assert [d.code for d in check(tmp_path)] == ["NL0801"]
    (tmp_path / "a.nl").write_bytes(b"\xff\xfe")
    assert [d.code for d in check(tmp_path / "a.nl")] == ["NL0803"]


def test_width_of_a_block_must_be_given() -> None:
    bag = DiagnosticBag()
    assert elaborate(load("swiglu", bag), arguments={}, bag=bag) is None
    assert [d.code for d in bag.items] == ["NL0319"]


def test_unknown_argument_from_outside() -> None:
    bag = DiagnosticBag()
    assert elaborate(load("hope", bag), arguments={"dimm": 3}, bag=bag) is None
    assert [(d.code, d.help) for d in bag.items] == [("NL0306", "did you mean `dim`?")]


def test_one_mistake_gives_one_report() -> None:
    text = "block f(x) { a = unknown; b = a + 1; c = linear(b, 8) * a; return c + split(b, 3) }\n"
    assert codes(text) == ["NL0301"]


def test_a_detached_weight_stays_as_drawn() -> None:
    """`detach(weight(..))` needs no gradient; any other parameter behind `detach` is a mistake."""
    good = "block f(x) { W = detach(weight(dim(x), dim(x))); return W @ x }\n"
    assert not [d for d in check(good, arguments={"dim": 4}) if d.severity == "error"]
    bad = "block f(x) { return x * detach(linear(x)) }\n"
    assert [d.code for d in check(bad, arguments={"dim": 4})] == ["NL0601"]


@pytest.mark.parametrize(
    "line", ["S *= a", "S[k] <- x by gd(lr = a) retain a", "S[k] <- x weighted a by gd(lr = 0.5)"]
)
def test_a_vector_of_one_is_a_number_where_there_are_no_heads(line: str) -> None:
    head = "block f(x) {\n  level c every 1 token { memory S = matrix() }\n  k = l2norm(linear(x))\n"
    write = "" if "<-" in line else "  S[k] <- x by gd(lr = 0.5)\n"
    text = f"{head}  a = sigmoid(linear(x, 1))\n  {line}\n{write}  return S[k]\n}}\n"
    assert check(text) == []
    scalar = text.replace("sigmoid(linear(x, 1))", "sigmoid(mean(linear(x)))")
    kinds = [[type(s).__name__ for s in block_of(t).body if not isinstance(s, Apply)] for t in (text, scalar)]
    assert kinds[0] == kinds[1]
    assert {d.code for d in check(text.replace("linear(x, 1)", "linear(x, 2)"))} == {"NL0418"}


@pytest.mark.parametrize("line", ["S *= a", "S[k] <- x by proximal(lr = 0.1) retain a"])
def test_gates_per_channel_are_refused_for_memories_of_several_weights(line: str) -> None:
    head = "block f(x) {\n  level c every 1 token { memory S = mlp() }\n  k = l2norm(linear(x))\n"
    write = "" if "<-" in line else "  S[k] <- x by proximal(lr = 0.1)\n"
    text = f"{head}  a = sigmoid(linear(x))\n  {line}\n{write}  return S[k]\n}}\n"
    assert [d.code for d in check(text)] == ["NL0418"]
    assert check(text.replace("linear(x))\n  S", "linear(x, 1))\n  S")) == []


def block_of(text: str) -> Block:
    bag = DiagnosticBag()
    program = elaborate(load(text, bag), block="f", arguments={"x": 8}, bag=bag)
    assert program is not None, bag.items
    return program.root
