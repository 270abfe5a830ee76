"""The five knowledge transfers, derived from the data flow."""

from __future__ import annotations

import os
import subprocess
import sys
from time import perf_counter

from nldsl.graph import LevelGraph, build_graph, graph_of
from nldsl.graph.equations import formula, rule_formula
from nldsl.spec.program import Call, Memory, Program, Repeat, Update
from tests.unit import handmade as h

SMT = "blocks[*].self_modifying_titans"
FIVE = ("Mk", "Mv", "Me", "Ma", "M")


def kinds(graph: LevelGraph, source: str, target: str) -> dict[str, tuple[str, ...]]:
    """kind -> what it carries, of the transfers from `source` to `target` within one copy."""
    return {t.kind: t.carries for t in graph.between(source, target) if not t.wraps}


def test_a_delta_layer_is_keyed_by_its_projections() -> None:
    graph = build_graph(h.only(h.layer()))
    assert kinds(graph, "slow(layer)", "S") == {
        "generate": ("retention", "key", "value", "rate"),
        "condition": ("query",),
    }
    assert kinds(graph, "S", "output") == {"condition": ("output",)}
    assert kinds(graph, "S", "slow(layer)") == {"backpropagate": ("gradient",)}
    assert kinds(graph, "input:x", "slow(layer)") == {"condition": ("input",)}
    assert not graph.between("slow(layer)", "output"), "a block speaks through its memory"


def test_gated_deltanet_of_the_library() -> None:
    graph = graph_of("gated_deltanet", block="gated_deltanet", dim=64)
    made = kinds(graph, "slow(gated_deltanet)", "S")["generate"]
    assert set(made) == {"key", "value", "rate", "retention"}


def test_hope_memories_generate_each_others_keys_rates_and_retention() -> None:
    graph = graph_of("hope")
    for target in FIVE:
        assert "key" in kinds(graph, f"{SMT}.Mk", f"{SMT}.{target}")["generate"]
        assert "rate" in kinds(graph, f"{SMT}.Me", f"{SMT}.{target}")["generate"]
        assert "retention" in kinds(graph, f"{SMT}.Ma", f"{SMT}.{target}")["generate"]
        assert "value" in kinds(graph, f"{SMT}.{target}", f"{SMT}.{target}")["generate"], "self[v]"
        assert kinds(graph, f"slow({SMT})", f"{SMT}.{target}")["initialise"] == ("initial state",)


def test_hope_memory_conditions_the_memory_system_behind_it() -> None:
    graph = graph_of("hope")
    assert "condition" in kinds(graph, f"{SMT}.M", "slow(blocks[*].cms)")
    assert not graph.between(f"{SMT}.M", "output"), "only through what follows it"
    assert not graph.between(f"{SMT}.Mk", "slow(blocks[*].cms)"), "`Mk` is read for keys alone"


def test_hope_memory_system_is_a_chain_with_one_gradient_flow() -> None:
    graph = graph_of("hope")
    f0, f1, f2 = (f"blocks[*].cms.F[{i}]" for i in range(3))
    assert kinds(graph, f0, f1) == {"condition": ("query",)}
    assert kinds(graph, f1, f2) == {"condition": ("query",)}
    assert kinds(graph, f0, f2) == {}, "the residual stream runs past F[1], the knowledge through it"
    assert kinds(graph, f2, f1) == {"backpropagate": ("error",)}
    assert kinds(graph, f1, f0) == {"backpropagate": ("error",)}
    assert kinds(graph, f2, f0) == {}


def test_equal_clocks_do_not_backpropagate_between_levels() -> None:
    graph = build_graph(h.only(h.chain((4, 4))))
    assert kinds(graph, "F1", "F0") == {}


def test_attention_transfers_non_parametrically() -> None:
    graph = graph_of("transformer")
    attention = "blocks[*].attention.A"
    out = [t for t in graph.transfers if t.source == attention and t.kind != "backpropagate"]
    assert out and all(t.kind == "non-parametric" for t in out)
    assert kinds(graph, "slow(blocks[*].attention)", attention)["generate"] == ("key", "value")


def test_optimisers_get_gradients_and_give_updates() -> None:
    graph = graph_of("hope")
    muon = "train[0].muon.m"
    assert kinds(graph, f"slow({SMT})", muon) == {"generate": ("gradient",)}
    assert kinds(graph, muon, f"slow({SMT})") == {"generate": ("update",)}
    assert not graph.between("slow(hope)", muon), "embedding, head and norms are trained by adamw"


def test_a_repeat_is_one_copy_that_feeds_the_next() -> None:
    graph = build_graph(h.model(h.layer(), depth=5))
    assert [(f.id, f.count) for f in graph.frames] == [("blocks[*]", 5)]
    assert graph.problem("blocks[*].layer.S").multiplicity == 5
    wraps = [t for t in graph.transfers if t.wraps]
    assert [(t.source, t.target) for t in wraps] == [("blocks[*].layer.S", "slow(blocks[*].layer)")]


def test_one_copy_alone_feeds_nothing_back() -> None:
    assert not any(t.wraps for t in build_graph(h.model(h.layer(), depth=1)).transfers)


def test_repeats_in_repeats_multiply() -> None:
    inner = h.block("inner", [], [Call((h.value("y"),), h.layer(), (h.value("x"),), "layer")])
    outer = h.block("outer", [], [Repeat((h.value("y"),), inner, (h.value("x"),), 2, "blocks")])
    root = h.block("root", [], [Repeat((h.value("y"),), outer, (h.value("x"),), 3, "blocks")])
    graph = build_graph(h.only(root))
    assert graph.problem("blocks[*].blocks[*].layer.S").multiplicity == 6
    assert graph.zones[-1].frames == ("blocks[*]", "blocks[*].blocks[*]")
    assert {t.source for t in graph.transfers} <= {p.id for p in (*graph.problems, *graph.ports)}


def test_detach_cuts_the_gradient_and_nothing_else() -> None:
    body = [
        h.linear("k", "x"),
        h.plain("d", "k", op="detach"),
        h.linear("eta", "x"),
        h.plain("e", "eta", op="detach"),
    ]
    cut = h.block("cut", [h.memory("S")], [*body, h.write("S", "d", "d", "e"), h.read("y", "S", "d")])
    graph = build_graph(h.only(cut))
    assert kinds(graph, "slow(cut)", "S") == {"generate": ("key", "value", "rate"), "condition": ("query",)}
    assert kinds(graph, "S", "slow(cut)") == {}


def test_a_memory_that_starts_from_another_is_initialised_by_it() -> None:
    first, base = h.memory("A", learned=True), h.memory("B")
    second = Memory(**{**base.__dict__, "init": "from", "init_from": "A"})
    body = [h.linear("k", "x"), h.linear("eta", "x"), h.write("B", "k", "k"), h.read("y", "B", "k")]
    graph = build_graph(h.only(h.block("nested", [first, second], body)))
    assert kinds(graph, "A", "B") == {"initialise": ("initial state",)}


def test_direct_updates_generate_too() -> None:
    body = [h.linear("k", "x"), Update("S", "add", h.value("k")), h.read("y", "S", "k")]
    graph = build_graph(h.only(h.block("plus", [h.memory("S")], body)))
    assert kinds(graph, "slow(plus)", "S")["generate"] == ("increment",)


def test_strongly_connected_memories_are_one_part() -> None:
    parts = graph_of("hope").parts
    assert tuple(f"{SMT}.{n}" for n in ("Mk", "Mv", "Me", "Ma")) in parts
    assert (f"{SMT}.M",) in parts


def test_a_hundred_layers_in_a_row_take_no_time() -> None:
    program: Program = h.model(*([h.layer()] * 100), depth=1)
    started = perf_counter()
    graph = build_graph(program)
    assert perf_counter() - started < 10
    assert sum(p.kind == "memory" for p in graph.problems) == 100
    for i in range(2, 100):
        entries = {
            t.source
            for t in graph.transfers
            if t.target == f"slow(blocks[*].layer_{i + 1})" and t.carries == ("input",)
        }
        assert entries == {f"blocks[*].layer_{i}.S"}


def test_formulas_read_as_written() -> None:
    assert formula(h.L2) == "0.5 * sum((pred - target) ** 2)"
    assert rule_formula(h.gd()) == "W = W - lr * g"
    assert formula(h.MATRIX) == "weight @ z"


def test_order_does_not_depend_on_hashes() -> None:
    """What is drawn and written is the same in every process."""
    script = "import json, nldsl, nldsl.graph as g; print(json.dumps(g.to_json(nldsl.graph('hope_tiny'))))"
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1
