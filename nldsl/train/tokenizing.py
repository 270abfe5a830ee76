"""Documents as tokens: bytes, or the ids of a `tokenizer.json`; and training such a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nldsl.evaluate.tokens import ids_of, opened
from nldsl.train.checkpoint import write_text
from nldsl.train.errors import fault
from nldsl.train.reading import documents_of, required

Ids = npt.NDArray[np.unsignedinteger[Any]]
BYTES, EXTRA, SMALLEST = "bytes", "tokenizers", 257


@dataclass(frozen=True)
class Codec:
    """How a document becomes numbers: `vocab` of them, in `dtype`; `text` is the tokenizer file, if any."""

    name: str
    vocab: int
    dtype: str
    text: str = ""
    inner: Any = None

    def encode(self, document: bytes) -> Ids:
        """The ids of one document.  Raises NL0943 if it has to be UTF-8 and is not."""
        if self.inner is None:
            return np.frombuffer(document, dtype=np.uint8)
        try:
            text = document.decode("utf-8")
        except UnicodeDecodeError as error:
            said = document[max(0, error.start - 20) : error.start].decode("utf-8", "replace")
            raise fault(
                "NL0943",
                f"a document is not UTF-8 at byte {error.start}, behind `{said}`",
                help="convert it, or prepare bytes: leave `--tokenizer` out",
            ) from error
        return np.array(ids_of(self.inner, text), dtype=self.dtype)


def byte_codec() -> Codec:
    """Token n is byte n.

    Example:
        >>> byte_codec().encode(b"ab").tolist()
        [97, 98]
    """
    return Codec(BYTES, 256, "uint8")


def read_codec(path: str) -> Codec:
    """The codec of a `tokenizer.json` (any tokenizer of the package `tokenizers`); bytes if `path` is empty.

    Errors: NL0941 (package missing), NL0942 (no such file, or no tokenizer).
    """
    if not path:
        return byte_codec()
    required("tokenizers", EXTRA, f"`{path}` is a tokenizer")
    try:
        text = Path(path).read_text(encoding="utf-8")
        inner = opened(text)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise fault(
            "NL0942", f"`{path}` cannot be read as a tokenizer: {reason}", help="give a `tokenizer.json`"
        ) from error
    vocab = inner.get_vocab_size(with_added_tokens=True)
    dtype = "<u2" if vocab <= 1 << 16 else "<u4"
    return Codec(sha256(text.encode()).hexdigest(), vocab, dtype, text, inner)


def train_tokenizer(paths: Sequence[str], out: str | Path, *, vocab: int, field: str = "") -> int:
    """Train byte-level byte-pair encoding (Sennrich et al. 2016) on documents; the ids that came out.

    Every byte is an id, so nothing is unknown and every text comes back exactly.  Errors: NL0941 (package
    missing), NL0957 (`out` is there), NL0981 (a vocabulary of bytes alone), and those of reading.
    """
    target = Path(out)
    if vocab < SMALLEST:
        raise fault("NL0981", f"`--vocab` must be at least {SMALLEST}: 256 bytes and a pair, found {vocab}")
    if target.exists():
        raise fault("NL0957", f"`{target}` is there already", help="give a new file as `--out`")
    module = required("tokenizers", EXTRA, "byte-pair encoding is trained by it")
    required("tokenizers.trainers", EXTRA, "byte-pair encoding is trained by it")
    inner = module.Tokenizer(module.models.BPE())
    inner.pre_tokenizer = module.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = module.decoders.ByteLevel()
    trainer = module.trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[],
        initial_alphabet=module.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(_texts(paths, field), trainer)
    write_text(target, inner.to_str(pretty=True) + "\n")
    found: int = inner.get_vocab_size()
    return found


def _texts(paths: Sequence[str], field: str) -> Iterator[str]:
    for document in documents_of(paths, field):
        yield document.text.decode("utf-8", "replace")
