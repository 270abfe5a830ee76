"""The table of the library, and the names that explain gives to what a block does."""

from __future__ import annotations

import json
from functools import cache

import pytest

from nldsl.cli import main
from nldsl.view.explain import explain
from nldsl.view.library_table import HEADINGS, TableRow, library_table, markdown, source

NAMES = {
    "kernel_attention": "linear attention",
    "retnet": "RetNet",
    "mamba1": "the element-wise gate of Mamba",
    "mamba2": "Mamba-2",
    "gla": "gated linear attention",
    "hgrn2": "HGRN-2",
    "deltanet": "DeltaNet (Yang et al. 2024) with write strength 2 sigma",
    "gated_deltanet": "Gated DeltaNet (Yang et al. 2025)",
    "gated_deltanet_negative": "Gated DeltaNet (Yang et al. 2025) with write strength 2 sigma",
    "deltaproduct": "DeltaProduct, 2 steps",
    "kda": "Kimi Delta Attention",
    "rwkv7": "RWKV-7",
    "comba": "Comba",
    "longhorn": "Longhorn, the diagonal",
    "longhorn_exact": "Longhorn, the exact step",
    "ojanet": "Oja's rule",
    "mesanet": "MesaNet",
    "ttt_linear": "a TTT layer",
    "ttt_mlp": "a TTT layer",
    "lact": "LaCT",
    "titans_linear": "Titans, a matrix memory",
    "titans_mlp": "Titans, a deep memory",
    "titans_mac": "Titans, a deep memory",
    "moneta": "Moneta",
    "yaad": "Yaad",
    "memora": "Memora",
    "dla": "deep linear attention",
    "omeganet": "OmegaNet",
    "atlas": "Atlas",
    "srwm": "a self-referential weight matrix",
    "attention": "softmax attention",
    "persistent_attention": "sliding-window attention with persistent pairs",
    "self_modifying_titans": "self-modifying Titans",
    "self_modifying_titans_with_momentum": "self-modifying Titans with momentum",
}


@cache
def table() -> dict[str, list[TableRow]]:
    found: dict[str, list[TableRow]] = {}
    for row in library_table():
        found.setdefault(row.spec, []).append(row)
    return found


@pytest.mark.parametrize("spec", NAMES)
def test_known_by_its_name(spec: str) -> None:
    name = table()[spec][0].name
    assert name == NAMES[spec] or name.startswith(NAMES[spec])


def test_a_name_is_told_by_what_is_computed() -> None:
    """The same layer under another name, and one that differs in a number."""
    text = """
    block mine(x, heads = 2) {
      level m every 1 token { memory S = matrix() per head }
      k = l2norm(split(linear(x), heads))
      r = RATE * sigmoid(linear(x, heads))
      S *= exp(-softplus(linear(x, heads)))
      S[k] <- linear(x)  minimize l2  by gd(lr = r)
      return S[k]
    }
    """

    def name(rate: str) -> str:
        return explain(text.replace("RATE", rate), dim=8).equations[0].known_as

    assert name("1") == "Gated DeltaNet (Yang et al. 2025)"
    assert name("2") == "Gated DeltaNet (Yang et al. 2025) with write strength 2 sigma"
    assert name("1.5") == "Gated DeltaNet (Yang et al. 2025) with write strength 1.5 sigma"


def test_every_block_with_a_memory_has_a_row_and_every_row_its_cells() -> None:
    for spec in (*NAMES, "titans_mag", "titans_mal", "performer", "taylor_attention", "dpfp_attention"):
        assert table()[spec], spec
    for row in library_table():
        assert row.objective and row.rule and row.clock and row.letter in "DRNXST" and row.equation, row
    assert table()["comba"][0].retention == "alpha, first"
    assert [r.memory for r in table()["titans_mag"]] == ["persistent_attention.A", "titans_mlp.M"]


def test_source_is_what_the_comment_cites() -> None:
    text = "# A file\n# Paper: Table 6, row 1.\nvariant a of b\n\n# A block\nblock f(x) { return x }\n"
    assert source(text, "f") == "Table 6, row 1"
    assert source("block f(x) { return x }\n", "f") == ""
    assert table()["kda"][0].source.endswith("arXiv 2510.26692, Eq. 1")


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["list", "--table"])
    shown = capsys.readouterr().out
    assert left.value.code in (0, None) and shown == markdown(library_table())
    assert all(line.replace("\\|", "").count("|") == len(HEADINGS) + 1 for line in shown.splitlines())
    with pytest.raises(SystemExit):
        main(["list", "blocks", "--table", "--json"])
    assert len(json.loads(capsys.readouterr().out)["memories"]) == len(library_table())
    with pytest.raises(SystemExit) as refused:
        main(["list", "maps", "--table"])
    assert refused.value.code == 2 and "NL1024" in capsys.readouterr().err
