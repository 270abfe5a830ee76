"""`nldsl export --to torch` and `--to onnx`: programs that are read back step by step as the model does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nldsl.diagnostics import SpecError
from nldsl.exchange import export_onnx, export_torch
from nldsl.train import load_run, train

torch.set_num_threads(1)
MODELS = {"transformer": {"dim": 8, "depth": 1, "heads": 2}, "hope_tiny": {"dim": 16, "depth": 1}}
LONG = {
    "gated_deltanet": {"dim": 16, "depth": 1, "heads": 2},
    "sliding_window_attention": {"dim": 8, "depth": 1},
}
Program = Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, Sequence[Tensor]]]


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    (folder / "text.txt").write_text("to be or not to be, that is the question. " * 200)
    for name in MODELS:
        trained(folder, name)
    return folder


def trained(folder: Path, name: str) -> Path:
    """A run of this model, made once."""
    asked = {"data": str(folder / "text.txt"), "steps": 1, "batch": 2, "length": 16}
    if not (folder / name).exists():
        train(name, out=folder / name, arguments=dict((MODELS | LONG)[name]), show=False, **asked)
    return folder / name


def walk(out: Path, run: Path, program: Program) -> None:
    """Twelve tokens one by one, from the state that was written, against the model."""
    about = json.loads((out / "interface.json").read_text())
    start = load_file(out / "state.safetensors")
    tensors: Sequence[Tensor] = [start[part["name"]] for part in about["step"]["state"]]
    model, state = load_run(run).model, None
    with torch.no_grad():
        for token in b"all the world":
            wanted, state = model(torch.tensor([[token]]), state)
            found, tensors = program(torch.tensor([[token]]), tensors)
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def check_torch(top: Path, name: str, out: Path) -> int | str:
    export_torch(trained(top, name), out)
    step = torch.export.load(out / "step.pt2").module()
    walk(out, top / name, lambda token, tensors: step(token, tuple(tensors)))
    length = json.loads((out / "interface.json").read_text())["forward"]["tokens"][1]
    model, whole = load_run(top / name).model, torch.export.load(out / "forward.pt2").module()
    with torch.no_grad():
        for count in [length] if isinstance(length, int) else [2, 33, 90]:
            tokens = torch.randint(0, 256, (1, count))
            torch.testing.assert_close(whole(tokens), model(tokens)[0], atol=1e-5, rtol=1e-4)
    found: int | str = length
    return found


def check_onnx(top: Path, name: str, out: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    export_onnx(trained(top, name), out)
    session = runtime.InferenceSession(str(out / "step.onnx"))
    about = json.loads((out / "interface.json").read_text())
    names = ["tokens", *(f"in/{part['name']}" for part in about["step"]["state"])]
    assert names == [given.name for given in session.get_inputs()]

    def program(token: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        given = {n: x.numpy() for n, x in zip(names, [token, *tensors], strict=True)}
        logits, *after = (torch.from_numpy(x) for x in session.run(None, given))
        return logits, after

    walk(out, top / name, program)


def test_attention_as_programs_of_torch(top: Path, tmp_path: Path) -> None:
    assert check_torch(top, "transformer", tmp_path / "out") == "any number from 2"
    with pytest.raises(SpecError, match="NL1101"):
        export_torch(top / "transformer", tmp_path / "out")


def test_what_commits_now_and_then_is_refused_by_name(top: Path, tmp_path: Path) -> None:
    for export in (export_torch, export_onnx):
        if export is export_onnx:
            pytest.importorskip("onnxscript")
        with pytest.raises(SpecError, match="NL1108") as found:
            export(top / "hope_tiny", tmp_path / "out")
        assert "`M` every 16 tokens" in str(found.value) and not (tmp_path / "out").exists()


def test_a_missing_package_is_named(top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SpecError, match="NL1007") as found:
        export_onnx(top / "transformer", tmp_path / "out")
    assert "nldsl[onnx]" in str(found.value.diagnostics[0].help)


@pytest.mark.long
@pytest.mark.parametrize("name", ["transformer", *LONG])
def test_onnx(name: str, top: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    check_onnx(top, name, tmp_path / "out")


@pytest.mark.long
@pytest.mark.parametrize("name", LONG)
def test_others_as_programs_of_torch(name: str, top: Path, tmp_path: Path) -> None:
    check_torch(top, name, tmp_path / "out")
