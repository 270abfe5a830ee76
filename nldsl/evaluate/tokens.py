"""Text as tokens: bytes, or what the tokenizer of an imported model says."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
"""What a folder may hold of a tokenizer; the first is what counts."""


class Tokens(Protocol):
    """How text becomes tokens, and tokens text, piece by piece."""

    name: str
    count: int
    """How many different tokens there are."""

    def encode(self, text: bytes) -> list[int]:
        """The tokens of a text."""

    def stream(self) -> Decoder:
        """Something that turns tokens back into bytes, one after the other."""


class Decoder(Protocol):
    """Tokens to bytes as they come."""

    def add(self, token: int) -> bytes:
        """What can be shown once `token` has come; the end of a character may still be missing."""


class ByteTokens:
    """Token n is byte n.

    Example:
        >>> ByteTokens().encode(b"ab"), ByteTokens().stream().add(97)
        ([97, 98], b'a')
    """

    name, count = "bytes", 256

    def encode(self, text: bytes) -> list[int]:
        """The bytes of a text."""
        return list(text)

    def stream(self) -> ByteTokens:
        """Nothing has to be remembered."""
        return self

    def add(self, token: int) -> bytes:
        """The byte of a token."""
        return bytes([token])


BYTES = ByteTokens()


def opened(text: str) -> Any:
    """The tokenizer of the text of a `tokenizer.json`, which neither pads nor cuts.

    Errors: `ModuleNotFoundError` for the package `tokenizers`, `ValueError` for a text that is none.
    """
    module = import_module("tokenizers")
    try:
        inner = module.Tokenizer.from_str(text)
    except Exception as wrong:  # the package raises nothing more exact
        raise ValueError(str(wrong)) from wrong
    inner.no_padding()
    inner.no_truncation()
    return inner


def ids_of(inner: Any, text: str) -> list[int]:
    """The tokens of a text, without those that only mark its beginning or end."""
    found: list[int] = inner.encode(text, add_special_tokens=False).ids
    return found


class FileTokens:
    """A `tokenizer.json`, read by the package `tokenizers`.  Errors: `ModuleNotFoundError`, `ValueError`."""

    def __init__(self, path: Path) -> None:
        try:
            self.inner = opened(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as wrong:
            raise ValueError(f"`{path}` is no tokenizer: {wrong}") from wrong
        self.name, self.count = path.name, int(self.inner.get_vocab_size(with_added_tokens=True))

    def encode(self, text: bytes) -> list[int]:
        """The tokens of a text, without those that only mark its beginning or end."""
        return ids_of(self.inner, text.decode("utf-8", "replace"))

    def stream(self) -> FileDecoder:
        """A decoder of its own."""
        return FileDecoder(self.inner)


class FileDecoder:
    """Shows what is sure: a character that is cut in two waits for its other half."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.shown, self.open = list[int](), list[int]()

    def add(self, token: int) -> bytes:
        """The text that `token` adds to what was shown."""
        self.open.append(token)
        before: str = self.inner.decode(self.shown, skip_special_tokens=False)
        after: str = self.inner.decode(self.shown + self.open, skip_special_tokens=False)
        if after.endswith("\N{REPLACEMENT CHARACTER}") and len(self.open) < 8:
            return b""
        # A few tokens of context are enough for the spaces between words.
        self.shown, self.open = (self.shown + self.open)[-8:], []
        return after[len(before) :].encode()


def tokens_of(folder: Path) -> Tokens:
    """The tokens of a run: those of its `tokenizer.json`, else bytes."""
    path = folder / TOKENIZER
    return FileTokens(path) if path.is_file() else ByteTokens()
