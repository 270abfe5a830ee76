"""An exported model inside lm-evaluation-harness, on tasks of local files."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from nldsl.evaluate import Sampling, generate
from nldsl.exchange import export_hub
from nldsl.train import load_run, train

torch.set_num_threads(1)
if find_spec("lm_eval") is None or find_spec("transformers") is None:
    pytest.skip("`lm_eval` is not installed", allow_module_level=True)

# No text of one list stands in the other: the harness takes texts that are equal but for their last token for
# one, and scores them all from where the continuation of the first begins.
CHOICES = [
    {"question": "to be or not to", "choices": [" be", " fly"], "label": 0},
    {"question": "that is the", "choices": [" answer", " question"], "label": 1},
    {"question": "not to be, that", "choices": [" was the question", " is"], "label": 1},
]
SENTENCES = [
    {"begin": "question. to be", "end": " or not to be, that is the question"},
    {"begin": "or not", "end": " to be"},
    {"begin": "be,", "end": " that was"},
]
TEXTS = ["to be or not", "that is the quest"]
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
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

folder, tasks, texts = sys.argv[1:]
TEXTS = json.loads(texts)
model = HFLM(pretrained=folder, trust_remote_code=True, device="cpu", batch_size=2, dtype="float32")
manager = TaskManager(include_path=tasks, include_defaults=False)
names = ["own_choice", "own_likelihood"]
found = simple_evaluate(model, tasks=names, task_manager=manager, bootstrap_iters=0)
by_task = found["samples"].items()
said = {task: [[one["doc"], [r[0] for r in one["resps"]]] for one in every] for task, every in by_task}

def ask(kind, arguments):
    asked = [Instance(request_type=kind, doc={}, arguments=one, idx=0) for one in arguments]
    return getattr(model, kind)(asked, disable_tqdm=True)

whole = ask("loglikelihood_rolling", [(text,) for text in TEXTS])
until = {"until": ["."], "max_gen_toks": 12, "do_sample": False}
ends = ask("generate_until", [(text, dict(until)) for text in TEXTS])
print(json.dumps([whole, ends]))
print(json.dumps([said, {task: found["results"][task] for task in said}]))
"""


@dataclass(frozen=True)
class Answers:
    """What the harness printed last, and the model of the run that was exported."""

    lines: list[Any]
    model: Any

    def direct(self, begin: bytes, end: bytes) -> tuple[float, bool]:
        """Nats of `end` behind `begin`, and whether each of its bytes is the likeliest."""
        tokens = torch.tensor([list(begin + end)])
        with torch.no_grad():
            rows = self.model(tokens[:, :-1])[0][0, len(begin) - 1 :].log_softmax(-1)
        ends = tokens[0, len(begin) :]
        return float(rows.gather(-1, ends[:, None]).sum()), bool((rows.argmax(-1) == ends).all())


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    tmp_path = tmp_path_factory.mktemp("harness")
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
        [sys.executable, "script.py", str(tmp_path / "hub"), str(tasks), json.dumps(TEXTS)],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | offline,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    lines = [json.loads(line) for line in run.stdout.splitlines()[-2:]]
    return Answers(lines, load_run(tmp_path / "run").model)


def test_tasks_of_local_files(answers: Answers) -> None:
    said, results = answers.lines[1]

    def same(found: list[float | bool], wanted: tuple[float, bool]) -> bool:
        return found == [pytest.approx(wanted[0], abs=1e-4), wanted[1]]

    chosen, begun = said["own_choice"], said["own_likelihood"]
    assert [doc for doc, _ in chosen] == CHOICES and [doc for doc, _ in begun] == SENTENCES
    right = 0
    for doc, found in chosen:
        nats = [answers.direct(doc["question"].encode(), choice.encode()) for choice in doc["choices"]]
        assert all(map(same, found, nats)) and len(found) == len(nats), (doc, found, nats)
        right += max(range(len(nats)), key=lambda i, nats=nats: nats[i][0]) == doc["label"]
    assert results["own_choice"]["acc,none"] == pytest.approx(right / len(CHOICES))
    assert right >= 2, "a model that learnt the text answers most"
    nats = [answers.direct(doc["begin"].encode(), doc["end"].encode()) for doc, _ in begun]
    assert all(same(answer, one) for (_, (answer,)), one in zip(begun, nats, strict=True)), (begun, nats)
    mean = sum(one for one, _ in nats) / len(nats)
    assert results["own_likelihood"]["perplexity,none"] == pytest.approx(math.exp(-mean), rel=1e-4)
    assert results["own_likelihood"]["acc,none"] == pytest.approx(sum(likeliest for _, likeliest in nats) / 3)


def test_whole_texts_and_generation(answers: Answers) -> None:
    """A text is scored behind the padding, byte 0; an answer ends in front of its stop."""
    whole, ends = answers.lines[0]
    nats = [answers.direct(b"\0", text.encode())[0] for text in TEXTS]
    assert whole == pytest.approx(nats, abs=1e-4)
    greedy = [bytes(generate(answers.model, t.encode(), 12, Sampling(temperature=0))) for t in TEXTS]
    assert ends == [text.decode().partition(".")[0] for text in greedy]
    assert any(b"." in text for text in greedy) and any(b"." not in text for text in greedy)
