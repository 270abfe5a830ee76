"""Whether data fit a model: its vocabulary, its streams, its classes."""

from __future__ import annotations

from typing import Any

from nldsl.evaluate import labelled, writes_task
from nldsl.spec.program import Program, TrainPlan
from nldsl.train.building import TrainableModel
from nldsl.train.data import Corpus
from nldsl.train.errors import fault


def require_vocabulary(model: TrainableModel, corpus: Corpus) -> None:
    """Raise NL0944 if the data have tokens, or classes, that the model has no row for."""
    name, have = model.program.name, vocabulary_of(model)
    if have is not None and have < corpus.vocab:
        raise fault(
            "NL0944",
            f"the data in `{corpus.name}` have {corpus.vocab:,} tokens, and `{name}` {have:,}",
            help=f"`--set vocab={corpus.vocab}`, where the spec has such a parameter",
        )
    have = rows_of(model, "head")
    if have is not None and have < corpus.classes:
        raise fault(
            "NL0944",
            f"the labels in `{corpus.name}` are of {corpus.classes:,} classes, and `{name}` knows {have:,}",
            help=f"give its `head` {corpus.classes:,} rows",
        )


def vocabulary_of(model: Any) -> int | None:
    """How many tokens a model knows; `None` if it has no table of them."""
    tables = ("embedding",) if labelled(model.program) else ("embedding", "head")
    return rows_of(model, *tables)


def rows_of(model: Any, *roles: str) -> int | None:
    """The fewest rows of a parameter of these roles."""
    found, known = model.parameter_roles(), model.parameter_paths()
    return min((p.shape[0] for path, p in known.items() if found[path] in roles), default=None)


def require_streams(program: Program) -> None:
    """Raise NL0984 unless the model reads what there can be: tokens and, where they are the task, labels."""
    names = [value.name for value in program.root.inputs]
    wanted = {"label"} if labelled(program) else set()
    if len(names) != 1 + len(wanted) or not wanted <= set(names):
        said, task = ", ".join(f"`{name}`" for name in names), "label" if wanted else "next_token"
        raise fault(
            "NL0984",
            f"`{program.name}` has the streams {said}; the task `{task}` gives "
            f"{'`tokens` and `label`' if wanted else '`tokens`'}",
            help="train it in a loop of your own: `model(...)`, or `model.learn(...)`, and `nldsl.optimizer`",
            span=program.root.span,
        )


def require_labels(program: Program, plan: TrainPlan, corpus: Corpus) -> None:
    """Raise NL0984 unless the data have labels where the task is those, and everywhere if tokens write."""
    if plan.task == "label" and not corpus.classes:
        help = "`nldsl data prepare FILE.jsonl --field text --label-field label --out DATA`"
        raise fault(
            "NL0984", f"the task is `label`, and `{corpus.name}` has no labels", help=help, span=plan.span
        )
    if plan.task != "label" and corpus.classes:
        raise fault(
            "NL0984",
            f"`{corpus.name}` has labels, and the task is `{plan.task}`",
            help="write `task label` in `train`, or prepare the data without `--label-field`",
            span=plan.span,
        )
    if corpus.classes and writes_task(program) and has_unlabelled(corpus):
        raise fault(
            "NL0984",
            f"memories of `{program.name}` minimise the task, and `{corpus.name}` does not label every token",
            help="give every token of a document a label",
            span=plan.span,
        )


def has_unlabelled(corpus: Corpus) -> bool:
    """Whether some token of labelled data has no label."""
    parts = (corpus.documents, corpus.heldout_documents)
    return any(bool((p.labels < 0).any()) for p in parts if p is not None and p.labels is not None)
