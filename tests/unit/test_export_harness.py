"""An exported model inside lm-evaluation-harness, on tasks of local files."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from nldsl.exchange import export_hub
from nldsl.train import load_run, train

torch.set_num_threads(1)
if find_spec("lm_eval") is None or find_spec("transformers") is None:
    pytest.skip("`lm_eval` is not installed", allow_module_level=True)

CHOICES = [
    {"question": "to be or not to", "choices": [" be", " fly"], "label": 0},
    {"question": "that is the", "choices": [" answer", " question"], "label": 1},
]
SENTENCES = [{"begin": "to be or", "end": " not to be"}, {"begin": "that", "end": " is the question"}]
TASKS = {
    "own_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    },
    "own_likelihood": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{begin}}",
        "doc_to_target": "{{end}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
}
SCRIPT = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

folder, tasks = sys.argv[1:]
model = HFLM(pretrained=folder, trust_remote_code=True, device="cpu", batch_size=2, dtype="float32")
manager = TaskManager(include_path=tasks, include_defaults=False)
names = ["own_choice", "own_likelihood"]
results = simple_evaluate(model, tasks=names, task_manager=manager, bootstrap_iters=0)["results"]
print(json.dumps({name: {k: v for k, v in results[name].items() if isinstance(v, float)} for name in names}))
"""


def test_tasks_of_local_files(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 200)
    asked = {"data": str(tmp_path / "text.txt"), "steps": 60, "batch": 4, "length": 42}
    sizes = {"dim": 32, "depth": 1, "heads": 2}
    train("gated_deltanet", out=tmp_path / "run", arguments=dict(sizes), show=False, **asked)
    export_hub(tmp_path / "run", tmp_path / "hub")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for (name, task), rows in zip(TASKS.items(), (CHOICES, SENTENCES), strict=True):
        (tasks / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": str(tasks / f"{name}.jsonl")}}
        body = {"task": name, "test_split": "train", **data, **task}
        (tasks / f"{name}.yaml").write_text(json.dumps(body))  # JSON is YAML
    (tmp_path / "script.py").write_text(SCRIPT)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    run = subprocess.run(
        [sys.executable, "script.py", str(tmp_path / "hub"), str(tasks)],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | offline,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    model = load_run(tmp_path / "run").model

    def likelihood(begin: str, end: str) -> float:
        """Nats of `end` behind `begin`."""
        tokens = torch.tensor([list((begin + end).encode())])
        with torch.no_grad():
            p = model(tokens[:, :-1])[0].log_softmax(-1).gather(-1, tokens[:, 1:, None])[0, :, 0]
        return float(p[len(begin.encode()) - 1 :].sum())

    right = [
        max(range(2), key=lambda i, row=row: likelihood(row["question"], row["choices"][i])) == row["label"]
        for row in CHOICES
    ]
    assert found["own_choice"]["acc,none"] == sum(right) / len(right)
    mean = sum(likelihood(row["begin"], row["end"]) for row in SENTENCES) / len(SENTENCES)
    assert found["own_likelihood"]["perplexity,none"] == pytest.approx(math.exp(-mean), rel=1e-4)
