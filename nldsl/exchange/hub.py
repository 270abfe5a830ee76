"""`nldsl export RUN --to hf`: a folder that `transformers` loads without nldsl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save_file
from torch import Tensor

import nldsl
from nldsl.emit.standalone import inline
from nldsl.evaluate.generate import START
from nldsl.evaluate.tokens import TOKENIZER, TOKENIZER_FILES
from nldsl.exchange.bytes_tokens import tokenizer_config, tokenizer_json
from nldsl.exchange.card import model_card
from nldsl.exchange.errors import refused
from nldsl.exchange.place import new_folder
from nldsl.runtime.model import Model
from nldsl.train import Run, load_run

REMOTE = Path(__file__).with_name("remote")
MARK = "program_nldsl.py"
"""What a folder of this export has and others have not."""
LENGTH = 2048
"""Where tools that want a longest input cut; the model itself has no limit."""
BYTES = 256


def export_hub(run: str | Path, out: str | Path, *, force: bool = False) -> Path:
    """Write the model of a run as a folder for `AutoModelForCausalLM.from_pretrained(out, ...)`.

    It is loaded with `trust_remote_code=True` and holds the weights (safetensors), the program as one file
    that needs torch and nothing of nldsl, two short files that speak to `transformers`, the tokenizer, and a
    card.  Errors: as `load_run`; NL1101 (`out`), NL1103 (streams besides tokens).
    """
    loaded = load_run(run)
    model = cast(Model, loaded.model)
    width = vocabulary_and_width(model)
    with new_folder(out, mark=MARK, force=force) as folder:
        for source in sorted(REMOTE.glob("*.py")):
            (folder / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        (folder / MARK).write_text(inline(cast(Any, model).source), encoding="utf-8")
        tensors = {f"model.{name}": plain(value) for name, value in model.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        _write_json(folder / "config.json", _config(model, *width))
        _write_json(folder / "generation_config.json", _generation(loaded, Path(run), width[0]))
        _write_tokenizer(Path(run), folder)
        (folder / "README.md").write_text(model_card(loaded, Path(out).name), encoding="utf-8")
    return Path(out)


def plain(value: Tensor) -> Tensor:
    """A tensor on the CPU that shares nothing."""
    return value.detach().cpu().contiguous().clone()


def vocabulary_and_width(model: Model) -> tuple[int, int]:
    """The number of tokens the model predicts, and the width of its embedding (0 if it has none).

    Raises NL1103 for a model of other streams besides tokens.
    """
    program = cast(Any, model).program
    streams = [one.name for one in program.root.inputs]
    if streams != ["tokens"]:
        raise refused(
            "NL1103",
            f"`{model.name}` reads the streams {', '.join(f'`{s}`' for s in streams)}; "
            "a causal language model reads `tokens` alone",
            help="`--to torch` exports any model",
        )
    vocabulary = int(program.root.outputs[0].shape[-1])
    roles = model.parameter_roles()
    tables = [p for path, p in model.parameter_paths().items() if roles[path] == "embedding"]
    return vocabulary, int(tables[0].shape[-1]) if tables else 0


def _config(model: Model, vocabulary: int, width: int) -> dict[str, Any]:
    return {
        "model_type": "nldsl",
        "architectures": ["NldslForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_nldsl.NldslConfig",
            "AutoModelForCausalLM": "modeling_nldsl.NldslForCausalLM",
        },
        "program": model.name,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "max_position_embeddings": LENGTH,
        "tie_word_embeddings": False,
        "dtype": str(next(iter(model.parameters())).dtype).removeprefix("torch."),
        "nldsl_version": nldsl.__version__,
    }


def _generation(loaded: Run, run: Path, vocabulary: int) -> dict[str, Any]:
    """What `generate` does unless told otherwise: as `nldsl generate`, it goes on and on."""
    if (run / TOKENIZER).is_file():
        return {"use_cache": True}
    never = {"suppress_tokens": list(range(BYTES, vocabulary))} if vocabulary > BYTES else {}
    return {"bos_token_id": START[0], "pad_token_id": 0, "use_cache": True, **never}


def _write_tokenizer(run: Path, folder: Path) -> None:
    """The tokenizer of the run, or bytes."""
    if (run / TOKENIZER).is_file():
        for name in TOKENIZER_FILES:
            if (run / name).is_file():
                (folder / name).write_bytes((run / name).read_bytes())
        return
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(tokenizer_config(LENGTH), encoding="utf-8")


def _write_json(path: Path, body: dict[str, Any]) -> None:
    path.write_text(json.dumps(body, indent=2, sort_keys=True) + "\n", encoding="utf-8")
