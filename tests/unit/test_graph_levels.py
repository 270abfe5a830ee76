"""Levels by Definition 2: frequency first, then who needs whose state at the same time."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import networkx as nx
import pytest

from nldsl.graph import LevelGraph, build_graph, graph_of, open_program, to_json
from nldsl.graph.levels import derive_levels, frequency, spoken
from nldsl.graph.places import all_parameters
from nldsl.spec.program import Clock
from tests.unit import handmade as h

HOPE_SMT = "blocks[*].self_modifying_titans"


def names(graph: LevelGraph) -> list[set[str]]:
    """The names of the problems of every level, slowest first; slow parameters by their id."""
    return [
        {p.id if p.kind == "slow parameters" else p.name for p in map(graph.problem, level.problems)}
        for level in graph.levels
    ]


def test_frequencies_rank_from_never_to_infinity() -> None:
    clocks = [Clock(0, "never"), Clock(10, "steps"), Clock(1, "steps"), Clock(64, "tokens"), h.TOKEN]
    ranks = [frequency(c) for c in (*clocks, Clock(0, "always"))]
    assert ranks == sorted(set(ranks))


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        (Clock(1, "tokens"), "every token"),
        (Clock(16, "tokens"), "every 16 tokens"),
        (Clock(1, "steps"), "every step"),
        (Clock(0, "never"), "frequency 0"),
    ],
)
def test_clocks_in_words(clock: Clock, words: str) -> None:
    assert spoken(clock) == words


def test_hope_has_its_memories_on_their_clocks() -> None:
    graph = graph_of("hope")
    assert names(graph) == [
        {"slow(hope)", f"slow({HOPE_SMT})", "slow(blocks[*].cms)"},
        {"muon.m", "adamw.m", "adamw.s"},
        {"F[2]"},
        {"M", "F[1]"},
        {"Mk", "Mv", "Me", "Ma", "F[0]"},
    ]
    assert [level.number for level in graph.levels] == ["1.1", "1.2", "2", "3", "4"]


def test_clocks_given_on_the_command_line_move_the_levels() -> None:
    graph = graph_of("hope", chunks=(16, 1024))
    assert [level.frequency for level in graph.levels][2:] == [
        "every 1024 tokens",
        "every 64 tokens",
        "every 16 tokens",
    ]


def test_transformer_is_frequency_infinity_beside_slow_parameters() -> None:
    graph = graph_of("transformer")
    assert graph.levels[-1].frequency == "frequency infinity"
    assert [p.kind for p in map(graph.problem, graph.levels[-1].problems)] == ["attention"]


def test_gated_deltanet_has_one_memory_per_block_on_every_token() -> None:
    graph = graph_of("gated_deltanet")
    last = graph.levels[-1]
    assert last.frequency == "every token"
    problem = graph.problem(last.problems[0])
    assert (problem.name, problem.copies, problem.multiplicity) == ("S", 4, 4)


def test_without_training_slow_parameters_are_of_frequency_zero() -> None:
    graph = build_graph(h.only(h.layer()))
    assert graph.levels[0].frequency == "frequency 0"
    assert "no `train` section" in graph.levels[0].reason


def test_adam_has_two_independent_memories_above_the_weights() -> None:
    """Weights at step t need both memories at step t; neither memory needs the other (App. B)."""
    levels = build_graph(h.model(h.layer())).levels
    by_number = {level.number: level.problems for level in levels}
    assert set(by_number["1.2"]) == {"train[0].adam.m", "train[0].adam.s"}
    assert "slow(model)" in by_number["1.1"]


def test_a_read_below_the_write_makes_the_reader_slower() -> None:
    """A is written, then read for the key of B: B at t needs A at t, so A is faster."""
    body = [h.linear("k", "x"), h.linear("eta", "x"), h.write("A", "k", "x"), h.read("r", "A", "k")]
    chained = h.block(
        "two", [h.memory("A"), h.memory("B")], [*body, h.write("B", "r", "x"), h.read("y", "B", "k")]
    )
    levels = build_graph(h.only(chained)).levels
    assert [(level.number, level.problems) for level in levels[1:]] == [("2.1", ("B",)), ("2.2", ("A",))]
    assert levels[2].reason == "same frequency as 2.1, but `B` at t needs `A` at t"


def test_a_read_above_the_write_leaves_them_on_one_level() -> None:
    body = [h.linear("k", "x"), h.linear("eta", "x"), h.read("r", "A", "k"), h.write("A", "k", "x")]
    side = h.block(
        "two", [h.memory("A"), h.memory("B")], [*body, h.write("B", "r", "x"), h.read("y", "B", "k")]
    )
    levels = build_graph(h.only(side)).levels
    assert levels[-1].problems == ("A", "B")


def test_a_chunked_memory_is_read_as_of_its_last_commit() -> None:
    """With C > 1 a read below the write still sees the old state: no dependence at the same time."""
    body = [h.linear("k", "x"), h.linear("eta", "x"), h.write("A", "k", "x"), h.read("r", "A", "k")]
    slow = [h.memory("A", Clock(4, "tokens")), h.memory("B", Clock(4, "tokens"))]
    chunked = h.block("two", slow, [*body, h.write("B", "r", "x"), h.read("y", "B", "k")])
    assert build_graph(h.only(chunked)).levels[-1].problems == ("A", "B")


def test_problems_that_need_each_other_share_a_tier() -> None:
    problems = build_graph(h.twelve()).problems[1:4]
    same = [replace(p, clock=h.TOKEN) for p in problems]
    a, b, c = (p.id for p in same)
    needs: nx.DiGraph[str] = nx.DiGraph([(a, b), (b, a), (b, c)])
    assert [level.problems for level in derive_levels(same, needs)] == [(c,), (a, b)]


def test_reasons_compare_with_the_level_below() -> None:
    reasons = {level.number: level.reason for level in build_graph(h.only(h.chain())).levels}
    assert reasons["3"] == "fires every 4 tokens: 4x as often as level 2 (every 16 tokens)"


def test_every_problem_is_on_exactly_one_level() -> None:
    for program in (h.only(h.layer()), h.model(h.layer(), h.chain()), h.twelve()):
        graph = build_graph(program)
        listed = [id for level in graph.levels for id in level.problems]
        assert sorted(listed) == sorted(p.id for p in graph.problems)


def test_json_is_plain_and_complete() -> None:
    graph = graph_of("hope")
    data = to_json(graph)
    assert len(data["problems"]) == len(graph.problems)
    assert len(data["transfers"]) == len(graph.transfers)
    assert data["problems"][0]["clock"] == {"every": 1, "unit": "steps", "text": "every step"}
    assert data["levels"][-1]["frequency"] == "every 16 tokens"


def test_state_and_parameters_are_counted() -> None:
    graph = graph_of("hope", dim=32, heads=2, depth=3)
    memory = graph.problem(f"{HOPE_SMT}.Mk")
    # Two heads of two 16 x 16 weights in float32, running and committed.
    assert memory.state_bytes == 2 * 2 * 16 * 16 * 4 * 2
    program = open_program("hope", dim=32, heads=2, depth=3)
    assert sum(p.parameters for p in graph.problems) == sum(prod(p.shape) for _, p in all_parameters(program))
    attention = graph_of("transformer", dim=32, heads=2).problem("blocks[*].attention.A")
    assert (attention.state_bytes, attention.bytes_per_token) == (0, 2 * 32 * 4)
    window = graph_of("transformer", dim=32, heads=2, window=8).problem("blocks[*].attention.A")
    assert (window.state_bytes, window.bytes_per_token) == (8 * 2 * 32 * 4, 0)


OUTER = """
model two(tokens, vocab = 7, dim = 4) {
  x = embed(tokens, vocab, dim)
  return head(norm(linear(x)), vocab)
}
train two {
  norms, rest by sgd(lr = 0.1)
  level slow every 3 steps { matrices by sgd(lr = 0.1) }
  level fast every 1 step { embeddings by adamw(lr = 0.1) }
  level outer every 1 step { head by adamw(lr = 0.1) }
}
"""


def test_every_level_of_training_keeps_its_own_name() -> None:
    graph = build_graph(open_program(OUTER))
    slow = {p.id: p.level for p in graph.problems if p.kind == "slow parameters"}
    assert slow == {"slow(two)@3": "slow", "slow(two)": "fast, training, outer"}
