"""Classes of labelled documents: words are numbered in their order, numbers stay what they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nldsl.train.errors import fault
from nldsl.train.reading import Document, Label

Numbers = npt.NDArray[np.int32]
NONE = -1


@dataclass(frozen=True)
class Classes:
    """`count` classes; `names` are their words, where labels are words."""

    count: int
    names: tuple[str, ...] = ()

    def of(self, document: Document, tokens: int) -> Numbers:
        """The class of every one of the tokens of a document, -1 for none.  Raises NL0956.

        Example:
            >>> classes_of({"no", "yes"}).of(Document(b"abc", "yes"), 3).tolist()
            [1, 1, 1]
        """
        label = document.label
        if not isinstance(label, tuple):
            return np.full(tokens, self.number(label), dtype=np.int32)
        if len(label) != tokens:
            said = document.text[:20].decode("utf-8", "replace")
            raise fault(
                "NL0956",
                f"the document that begins with `{said}` has {len(label)} labels and {tokens} tokens",
                help="give a label for every token (of bytes, for every byte), or one for the whole document",
            )
        return np.array([self.number(one) for one in label], dtype=np.int32)

    def number(self, label: Label) -> int:
        """The number of one label."""
        if isinstance(label, str):
            return self.names.index(label)
        return max(NONE, int(label)) if isinstance(label, int) else NONE

    def describe(self, field: str) -> dict[str, Any]:
        """For the sidecar of prepared data."""
        return {"field": field, "classes": self.count, "names": list(self.names)}


def said_by(label: Label) -> Iterable[str | int]:
    """The words and numbers of a label."""
    found = label if isinstance(label, tuple) else (label,)
    return (one for one in found if isinstance(one, str | int))


def classes_of(seen: Iterable[str | int]) -> Classes:
    """The classes of all labels.  Raises NL0956 if some are words and others numbers, or all are none."""
    words = sorted({one for one in seen if isinstance(one, str)})
    numbers = {int(one) for one in seen if not isinstance(one, str) and one >= 0}
    if words and numbers:
        raise fault(
            "NL0956",
            f"some labels are words (`{words[0]}`), others numbers ({min(numbers)})",
            help="write all of them in one way",
        )
    if not words and not numbers:
        raise fault("NL0956", "no token has a label", help="-1 is none: give numbers from 0, or words")
    return Classes(len(words) or max(numbers) + 1, tuple(words))
