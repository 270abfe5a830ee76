"""How a step is computed changes what it costs, not what it is."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import nldsl
from nldsl.cli import main
from nldsl.diagnostics import SpecError
from nldsl.native import turn_on
from nldsl.runtime.block_recompute import recompute_blocks
from nldsl.runtime.native import compiler
from nldsl.train import load_run, manner, train
from nldsl.train.manner import STEP, Lowered, compile_blocks, row_functions
from nldsl.train.memory import measure
from nldsl.train.passes import backward_from

SMALL: dict[str, dict[str, Any]] = {
    "transformer": {"depth": 2, "heads": 2},
    "gated_deltanet": {"depth": 2, "heads": 2},
    "titans_mlp": {"depth": 2, "heads": 2},
    "samba": {"depth": 1, "heads": 2, "window": 8},
    "hope_tiny": {"depth": 2, "chunks": (4, 8)},
}
CHUNKED = """
block own(x, heads = 2, chunk = 4) {
  level slow every chunk tokens { memory A = matrix() per head init learned }
  z = split(x, heads)
  k = l2norm(A[z])
  A[k] <- z  minimize l2  by dgd(lr = 0.1 * sigmoid(sum(k)))  retain 0.9 toward init
  return merge(A[k])
}
model m(tokens, vocab = 256, dim = 8) {
  x = embed(tokens, vocab, dim)
  x = x + own(norm(x))
  return head(norm(x), vocab)
}
"""
CHECKPOINTED = """
model m(tokens, vocab = 256, dim = 16) {
  x = embed(tokens, vocab, dim)
  x = x + gated_deltanet(norm(x), 2)
  return head(norm(x), vocab)
}
"""


def tokens(length: int = 37) -> torch.Tensor:
    found = torch.randint(0, 256, (2, length), generator=torch.Generator().manual_seed(1))
    found[1, 30:] = -1
    return found


def gradients(
    model: nldsl.Model, pieces: int = 0, given: torch.Tensor | None = None
) -> tuple[float, dict[str, torch.Tensor], Any]:
    model.zero_grad()
    loss, state = backward_from(model, tokens() if given is None else given, None, pieces)
    return (
        loss,
        {path: p.grad.clone() for path, p in model.parameter_paths().items() if p.grad is not None},
        state,
    )


@pytest.mark.parametrize("pieces", [0, 16])
@pytest.mark.parametrize("name", [n for n in SMALL if n != "hope_tiny"])
def test_blocks_computed_again_change_nothing(name: str, pieces: int) -> None:
    plain, again = (nldsl.compile(name, dim=16, dtype=torch.float64, **SMALL[name]) for _ in range(2))
    agree(plain, again, tokens(), pieces)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("carry", ["trunc", "exact"])
def test_memories_of_the_task_learn_the_same_in_blocks_computed_again(carry: str, padded: bool) -> None:
    """Samples in step keep rows for the gradients of their weights; padding takes the general way."""
    models = [nldsl.compile("hope_tiny", dim=16, dtype=torch.float64, **SMALL["hope_tiny"]) for _ in range(2)]
    for model in models:
        model.carry = carry
    found = tokens() if padded else tokens()[:1, :30]
    agree(*models, found, 0)


@pytest.mark.parametrize("carry", ["trunc", "exact"])
def test_and_in_pieces(carry: str) -> None:
    models = [nldsl.compile("hope_tiny", dim=16, dtype=torch.float64, **SMALL["hope_tiny"]) for _ in range(2)]
    for model in models:
        model.carry = carry
    agree(*models, tokens()[:1, :30], 13)


def agree(plain: nldsl.Model, again: nldsl.Model, given: torch.Tensor, pieces: int) -> None:
    """Loss, gradients and states of a model, and of one whose blocks are computed again."""
    assert recompute_blocks(again.root)
    (loss, want, state), (other, got, behind) = (gradients(m, pieces, given) for m in (plain, again))
    assert loss == other and want.keys() == got.keys() and len(want) > 5
    for path, gradient in want.items():
        torch.testing.assert_close(got[path], gradient, rtol=1e-9, atol=1e-13, msg=path)
    # With `exact`, blocks in front of task memories run ahead for all segments, unless computed again.
    bound = 1e-12 if plain.carry == "exact" else 0.0
    for path, tensor in state.tensors().items():
        torch.testing.assert_close(behind.tensors()[path], tensor, rtol=bound, atol=bound, msg=path)


def test_blocks_computed_again_keep_less() -> None:
    plain, again = (nldsl.compile("gated_deltanet", dim=32, depth=6, heads=2) for _ in range(2))
    recompute_blocks(again.root)

    def step(model: Any, found: torch.Tensor) -> Any:
        return backward_from(model, found, None, 0)

    kept, less = (measure(model, step, 128)[1] for model in (plain, again))
    assert less < kept / 2


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_lowers_products_only(name: str) -> None:
    model = nldsl.compile(name, dim=16, **SMALL[name])
    loss, want, _ = gradients(model)
    model.zero_grad()
    other, state = backward_from(Lowered(model, torch.device("cpu")), tokens(), None, 0)
    assert other != loss and other == pytest.approx(loss, rel=0.02)
    assert {t.dtype for t in state.tensors().values() if t.is_floating_point()} <= {torch.float32}
    for path, parameter in model.parameter_paths().items():
        if path in want:
            assert parameter.grad is not None and parameter.grad.dtype == torch.float32
            away = (parameter.grad - want[path]).norm() / want[path].norm().clamp_min(1e-6)
            assert away < 0.3, f"{path}: {away:.2g}"


def test_half_precision_stays_in_blocks_computed_again() -> None:
    models = [nldsl.compile("transformer", dim=16, depth=2, heads=2) for _ in range(2)]
    recompute_blocks(models[1].root)
    found = []
    for model in models:
        backward_from(Lowered(model, torch.device("cpu")), tokens(), None, 0)
        found.append({path: p.grad for path, p in model.parameter_paths().items()})
    for path, gradient in found[0].items():
        assert gradient is not None and torch.equal(gradient, found[1][path]), path


def test_a_run_in_another_manner_is_resumed_exactly_and_remembers_it(tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "data": str(Path(__file__)),
        "batch": 2,
        "length": 16,
        "arguments": {"dim": 16, "depth": 1, "heads": 2},
        "precision": "bfloat16",
        "recompute": "blocks",
        "show": False,
    }
    train("gated_deltanet", out=tmp_path / "whole", steps=4, **asked)
    train("gated_deltanet", out=tmp_path / "cut", steps=2, **asked)
    with pytest.raises(SpecError) as caught:
        train(
            "gated_deltanet", out=tmp_path / "cut", steps=4, resume=True, **{**asked, "precision": "float32"}
        )
    assert caught.value.diagnostics[0].code == "NL0983"
    # A schedule over the whole run is another one when the run is made longer: these rules have none.
    whole, cut = (load_run(tmp_path / name).model.parameter_paths() for name in ("whole", "cut"))
    train("gated_deltanet", out=tmp_path / "cut", steps=4, resume=True, **asked)
    cut = load_run(tmp_path / "cut").model.parameter_paths()
    assert all(torch.isfinite(p).all() for p in whole.values()) and whole.keys() == cut.keys()
    records = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    last = records[-1]
    assert last["levels"]["context"]["state_norm"] > 0 and 0 < last["levels"]["context"]["retention"] < 1
    assert last["memories"]["blocks[*].gated_deltanet.S"]["used"] > 0
    assert 0 < last["share_of_bound"] < 1 and last["peak_memory_bytes"] > 1e7


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    for options, code in (
        ({"precision": "float8"}, "NL0981"),
        ({"recompute": "all"}, "NL0981"),
        ({"compiled": "maybe"}, "NL0981"),
    ):
        with pytest.raises(SpecError) as caught:
            train("transformer", out=tmp_path / "run", data=__file__, steps=1, **options)  # type: ignore[arg-type]
        assert caught.value.diagnostics[0].code == code
    (tmp_path / "flat.nl").write_text("model flat(tokens) { return head(embed(tokens, 256, 8), 256) }\n")
    with pytest.raises(SpecError) as caught:
        train(tmp_path / "flat.nl", out=tmp_path / "run", data=__file__, steps=1, recompute="blocks")
    assert caught.value.diagnostics[0].code == "NL0996"


@pytest.mark.skipif(not compiler(), reason="there is no C compiler")
def test_a_run_with_native_steps_is_the_run(tmp_path: Path) -> None:
    (tmp_path / "own.nl").write_text(CHUNKED)
    asked: dict[str, Any] = {"data": __file__, "batch": 2, "length": 8, "seed": 1}
    for name in ("native", "no"):
        train(tmp_path / "own.nl", out=tmp_path / name, steps=3, compiled=name, **asked)
    plain, native = (load_run(tmp_path / name) for name in ("no", "native"))
    assert (plain.config.compiled, native.config.compiled) == ("no", "native")
    others = plain.model.parameter_paths()
    for path, parameter in native.model.parameter_paths().items():
        torch.testing.assert_close(parameter, others[path], rtol=1e-3, atol=1e-5)
    # Cut and gone on with, to the last bit.
    train(tmp_path / "own.nl", out=tmp_path / "cut", steps=2, compiled="native", **asked)
    train(tmp_path / "own.nl", out=tmp_path / "cut", steps=3, compiled="native", resume=True, **asked)
    for path, parameter in load_run(tmp_path / "cut").model.parameter_paths().items():
        assert torch.equal(parameter, native.model.parameter_paths()[path])


def test_native_steps_where_there_can_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model, flat = nldsl.compile(CHUNKED), nldsl.compile("transformer", dim=16, depth=1, heads=2)
    monkeypatch.setattr(turn_on, "products", lambda dtype: None)
    with pytest.raises(SpecError, match="no block has a loop or a pass over chunks"):
        compile_blocks(flat, "native")
    with pytest.raises(SpecError, match="bfloat16"):
        compile_blocks(model, "native", "bfloat16")
    with pytest.raises(SpecError, match="lanes run on the CPU"):
        compile_blocks(nldsl.compile(CHUNKED).to("meta"), "native")
    monkeypatch.setattr(manner, "compiler", lambda: "")
    with pytest.raises(SpecError, match="NL0997.*no C compiler"):
        compile_blocks(model, "native")


@pytest.mark.skipif(not compiler(), reason="needs a C compiler")
def test_linear_layers_alone_are_enough_for_native_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_on, "products", lambda dtype: lambda *_: 0)
    flat = nldsl.compile("transformer", dim=16, depth=1, heads=2)
    assert compile_blocks(flat, "native") == 0
    report = turn_on.native(flat)
    assert str(report) == "linear layers: large products in C, of which none has come" and report.linears


def test_functions_on_rows_are_what_is_compiled() -> None:
    """Of a memory whose chunks are one pass: map, gradient, and their ways back; the answers stay."""
    layer = nldsl.compile(
        "block b(x) {\n level c every 3 tokens { memory M = mlp(2) }\n"
        " M[x] <- x by momentum(lr = 0.1)\n return M[x]\n}\n",
        x=4,
    )
    names = {name for _, name in row_functions(layer.root)}
    assert names == {"mlp_kept", "mlp_pullback", "mlp_l2_gradient_kept", "mlp_l2_gradient_pullback"}
    assert compile_blocks(layer, "yes") == 4
    assert all("_torchdynamo_orig_callable" in dir(f[n]) for f, n in row_functions(layer.root))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs as torch compiles them, without the minute that code for them takes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.mark.parametrize("again", [False, True])
def test_compiled_blocks_say_the_same(again: bool, quick: None) -> None:
    plain, made = (nldsl.compile(CHECKPOINTED, dtype=torch.float64) for _ in range(2))
    if again:
        recompute_blocks(made.root)
    assert compile_blocks(made, "auto") == 1
    (loss, want, _), (other, got, _) = gradients(plain), gradients(made)
    assert loss == pytest.approx(other, rel=1e-12) and want.keys() == got.keys()
    for path, gradient in want.items():
        torch.testing.assert_close(got[path], gradient, rtol=1e-9, atol=1e-12, msg=path)


def test_what_is_compiled_is_what_the_plan_says() -> None:
    hope = nldsl.compile("hope_tiny", dim=16, depth=2)
    assert compile_blocks(hope, "auto") == 0
    # Of loops over chunks it is the step; without running what compiles for a minute.
    modules = list(hope.root.modules())
    steps = [(module, name) for module in modules for name in dir(type(module)) if name.startswith(STEP)]
    assert compile_blocks(hope, "yes") == len(steps) > 0
    assert all("_torchdynamo_orig_callable" in dir(getattr(module, name)) for module, name in steps)
    assert compile_blocks(nldsl.compile("transformer", dim=16, depth=1, heads=2), "auto") == 0
    assert compile_blocks(nldsl.compile("samba", dim=16, depth=1, heads=2, window=8), "auto") == 0
    assert compile_blocks(nldsl.compile("gated_deltanet", dim=16, depth=1, heads=2), "auto") == 1
    flat = nldsl.compile("model flat(tokens) { return head(embed(tokens, 256, 8), 256) }")
    with pytest.raises(SpecError, match="NL0997"):
        compile_blocks(flat, "yes")


def test_the_plan_says_whether_compiling_pays(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["plan", "samba", *"--set dim=16 --set depth=1 --set heads=2 --length 16".split()])
    with pytest.raises(SystemExit, match="0"):
        main(["plan", "gated_deltanet", *"--set dim=16 --set depth=1 --set heads=2 --length 16".split()])
    said = capsys.readouterr().out
    assert "torch.compile Mamba1: no" in said and "torch.compile Attention: no" in said
    assert "torch.compile GatedDeltanet: pays" in said
