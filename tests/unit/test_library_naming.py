"""Parameter names against the installed torch."""

from __future__ import annotations

import keyword
import subprocess
import sys

import torch

from nldsl.catalog import RESERVED, attribute, torch_name


def test_reserved_names_cover_torch_and_python() -> None:
    # In a process of its own: other libraries put methods into torch's module when they are imported.
    asked = "import torch; print(*dir(torch.nn.Module), *vars(torch.nn.Module()))"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    taken = {name for name in said.split() if not name.startswith("_")}
    assert {"forward", "state_dict"} <= taken <= RESERVED
    assert set(keyword.kwlist) <= RESERVED


def test_no_name_of_the_language_needs_torch_to_be_escaped_twice() -> None:
    names = ["train", "train_", "train__", "_apply", "lambda", "q", "weight", "state_dict", "root"]
    escaped = [attribute(n) for n in names]
    assert len(set(escaped)) == len(names)
    module = torch.nn.Module()
    for name in escaped:
        assert not hasattr(module, name)


def test_paths() -> None:
    assert torch_name("blocks[3].gated_deltanet.q.linear.weight") == "blocks.3.gated_deltanet.q.linear.weight"
    assert torch_name("x[1][0].norm.weight") == "x.1.0.norm.weight"
    assert torch_name("M.train.weight") == "M.train_.weight"
