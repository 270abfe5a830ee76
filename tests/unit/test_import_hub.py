"""`nldsl import hf:FOLDER`: models of transformers as specifications, equal to them, that go on learning."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import nldsl
from nldsl.cli.guard import guarded
from nldsl.diagnostics import SpecError
from nldsl.evaluate import Sampling, generate, learn_online
from nldsl.evaluate.online import bits
from nldsl.exchange import import_hub
from nldsl.exchange.stack import read_stack
from nldsl.source import SourceFile
from nldsl.syntax import format_text
from nldsl.train import load_run, train

transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)
BASE = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
GPT2 = {"vocab_size": 256, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2 untied": (
        "GPT2",
        GPT2
        | {
            "n_inner": 50,
            "activation_function": "gelu",
            "tie_word_embeddings": False,
            "layer_norm_epsilon": 1e-3,
        },
    ),
    "llama": (
        "Llama",
        BASE
        | {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-3}
        | {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ),
    "llama 3": ("Llama", BASE | {"num_key_value_heads": 1, "head_dim": 16, "rope_parameters": LLAMA3}),
    "llama stretched": (
        "Llama",
        BASE
        | {"hidden_act": "gelu_pytorch_tanh"}
        | {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e3, "factor": 3.0}},
    ),
    "mistral": ("Mistral", BASE | {"num_key_value_heads": 2, "sliding_window": 7}),
    "qwen2": (
        "Qwen2",
        BASE
        | {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", BASE | {"num_key_value_heads": 2, "head_dim": 10, "tie_word_embeddings": True}),
}
TOKENS = torch.randint(0, 256, (2, 50), generator=torch.Generator().manual_seed(5))


def made(name: str, folder: Path) -> Any:
    """A random model of transformers, saved in `folder`."""
    kind, given = CASES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**given, bos_token_id=1, eos_token_id=2)
    model = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(
        config
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too: nothing may go missing unseen
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("import") / "Tiny-Llama"
    made("llama", folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    with torch.no_grad():
        wanted = made(name, tmp_path / "theirs")(TOKENS).logits
    import_hub(f"hf:{tmp_path / 'theirs'}", tmp_path / "ours", name="mine")
    run = nldsl.load(tmp_path / "ours")
    with torch.no_grad():
        found, state = run.model(TOKENS)
        first, state = run.model(TOKENS[:, :21])
        rest, _ = run.model(TOKENS[:, 21:], state)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat([first, rest], 1), wanted, atol=1e-5, rtol=0)
    text = (tmp_path / "ours" / "spec" / "mine.nl").read_text()
    assert (
        text == format_text(SourceFile("mine.nl", text)) and nldsl.check(tmp_path / "ours/spec/mine.nl") == []
    )
    import_hub(f"hf:{tmp_path / 'theirs'}", tmp_path / "still", stack="cms(chunks = [4, 8], rate = 0)")
    with torch.no_grad():
        assert torch.equal(nldsl.load(tmp_path / "still").model(TOKENS)[0], found)


def test_at_rate_zero_learning_changes_no_bit(llama: Path, tmp_path: Path) -> None:
    text = b"over and over again. " * 24
    import_hub(f"hf:{llama}", tmp_path / "plain")
    plain = nldsl.load(tmp_path / "plain").session().model
    wanted = [bits(plain, text[i : i + 126], plain.init_state(1)) for i in range(0, len(text), 126)]
    for rate, moves in ((0, False), (0.03, True)):
        import_hub(f"hf:{llama}", tmp_path / f"{rate}", stack=f"cms(chunks = [8, 16], rate = {rate})")
        model = nldsl.load(tmp_path / f"{rate}").session().model
        assert [task.memory.every for task in model.task_memories()] == [8, 16, 8]
        segments, _ = learn_online(model, text, 126)
        if moves:
            assert segments[0].before == wanted[0] and all(s.after < s.before for s in segments)
            assert segments[-1].before < segments[0].before - 1
        else:
            assert [(s.before, s.after, s.end) for s in segments] == [(w, w, w) for w in wanted]


def test_training_goes_on_from_the_weights(llama: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    import_hub(f"hf:{llama}", run, name="mine")
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 200)
    before = {k: p.detach().clone() for k, p in load_run(run).model.parameter_paths().items()}
    asked: dict[str, Any] = {"out": run, "data": str(tmp_path / "text.txt"), "batch": 2, "length": 32}
    spec = run / "spec" / "mine.nl"
    train(spec, **asked, steps=2, resume=True, show=False)
    after = load_run(run).model.parameter_paths()
    moved = max(float((after[k] - before[k]).detach().abs().max()) for k in before)
    assert 0 < moved < 1e-4, "two small steps from the weights that were brought in"
    train(spec, **asked, steps=4, resume=True, show=False)
    with pytest.raises(SpecError, match="NL0983"):
        train(spec, **asked | {"batch": 4}, steps=6, resume=True, show=False)


def test_its_tokenizer_comes_along(llama: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tmp_path / "theirs"
    shutil.copytree(llama, theirs)
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=256, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(["the cat sat"], trainer)
    inner.save(str(theirs / "tokenizer.json"))
    import_hub(f"hf:{theirs}", tmp_path / "run")
    run = load_run(tmp_path / "run")
    prompt = "Zoë sat".encode()
    assert run.tokens.encode(prompt) == inner.encode(prompt.decode()).ids and run.tokens.count == 256
    found = list(generate(run.model, run.tokens.encode(prompt), 9, Sampling(temperature=0), run.tokens.count))
    session = run.session()
    session.feed(prompt)
    assert list(session.generate(9, Sampling(temperature=0))) == found
    decoder = run.tokens.stream()
    ids = inner.encode("the caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{GRINNING FACE} cat").ids
    assert b"".join(decoder.add(i) for i in ids).decode() == inner.decode(ids)


Change = Callable[[dict[str, Any]], object]
REFUSED: dict[str, Change] = {
    "model_type": lambda c: c.update(model_type="mixtral"),
    "hidden_act": lambda c: c.update(hidden_act="quick_gelu"),
    "rope_parameters.rope_type": lambda c: c["rope_parameters"].update(rope_type="yarn"),
    "partial_rotary_factor": lambda c: c["rope_parameters"].update(partial_rotary_factor=0.5),
    "quantization_config": lambda c: c.update(quantization_config={"bits": 4}),
    "num_key_value_heads": lambda c: c.update(num_key_value_heads=3),
    "hidden_size": lambda c: c.update(hidden_size="large"),
    "rms_norm_eps": lambda c: c.update(rms_norm_eps=-1),
    "mlp_bias": lambda c: c.update(mlp_bias="yes"),
    "head_dim": lambda c: c.update(head_dim=7),
    "pretraining_tp": lambda c: c.update(pretraining_tp=2),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_brought_in_is_named(key: str, llama: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(llama, theirs)
    body = json.loads((theirs / "config.json").read_text())
    REFUSED[key](body)
    (theirs / "config.json").write_text(json.dumps(body))
    with pytest.raises(SpecError, match="NL1106") as found:
        import_hub(f"hf:{theirs}", tmp_path / "run")
    assert f"`{key}`" in str(found.value) and not (tmp_path / "run").exists()


def test_version_4_names_of_rotary_keys(llama: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(llama, theirs)
    body = json.loads((theirs / "config.json").read_text())
    rotary = body.pop("rope_parameters")
    body |= {"rope_theta": rotary["rope_theta"], "rope_scaling": None}
    (theirs / "config.json").write_text(json.dumps(body))
    for source, out in ((llama, "new"), (theirs, "old")):
        import_hub(f"hf:{source}", tmp_path / out, name="mine")
    assert (tmp_path / "old/spec/mine.nl").read_text() == (tmp_path / "new/spec/mine.nl").read_text()


def broken(folder: Path, file: str, content: bytes | None) -> None:
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", None, "has no `config.json`"),
        ("config.json", b"{", "is no JSON"),
        ("config.json", b"[]", "holds no object"),
        ("model.safetensors", None, "has no `model.safetensors`"),
        ("model.safetensors", b"\0" * 64, "cannot be read"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../b.safetensors"}}', "outside the folder"),
    ],
)
def test_damaged_folders(
    file: str,
    content: bytes | None,
    said: str,
    llama: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(llama, theirs)
    broken(theirs, file, content)
    assert guarded(lambda: import_hub(f"hf:{theirs}", tmp_path / "run")) == 1
    shown = capsys.readouterr().err
    assert "NL1105" in shown and said in shown and "Traceback" not in shown
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text",
    ["mlp()", "cms", "cms([8])", "cms(chunks = 8)", "cms(chunks = [8, 12])", "cms(chunks = [])"]
    + ["cms(chunks = [8], rate = -1)", "cms(chunks = [8], speed = 1)", "cms(chunks = [open])", "(" * 500],
)
def test_what_is_no_stack(text: str) -> None:
    with pytest.raises(SpecError, match="NL1107"):
        read_stack(text)


def test_existing_runs_stay(llama: Path, tmp_path: Path) -> None:
    import_hub(f"hf:{llama}", tmp_path / "run")
    with pytest.raises(SpecError, match="NL1101"):
        import_hub(f"hf:{llama}", tmp_path / "run")
    import_hub(f"hf:{llama}", tmp_path / "run", force=True)
    with pytest.raises(SpecError, match="NL1104"):
        import_hub(str(llama), tmp_path / "other")
