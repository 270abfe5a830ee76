"""Tokens to train on: where they come from, what is held out, and which window a step sees.

A token is a byte, unless prepared data say otherwise.  A corpus is two memory-mapped shards, `train.bin`
and `heldout.bin`, and `corpus.json`, which says what they were made of.  Which files are held out depends
only on their relative names, and a batch depends only on (seed, step): a run can be repeated
and resumed exactly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nldsl.train.checkpoint import write_text
from nldsl.train.documents import Documents
from nldsl.train.errors import fault
from nldsl.train.files import Found, discover, refusal
from nldsl.train.prepared import TOKENIZER, checked, is_prepared, read_sidecar
from nldsl.train.tokenizing import BYTES

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Windows = npt.NDArray[np.integer[Any]]

HELD_OUT_SHARE = 0.05
FEWEST_FILES = 8
"""With fewer files than this one file is too large a share: the bytes are cut in blocks instead."""
BLOCKS = 100
SMALLEST_BLOCK, LARGEST_BLOCK = 1024, 1 << 16
COPY = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """Training and held-out tokens of one source.

    `digest` is the sha256 of both shards: two corpora with the same digest give the same batches.
    """

    name: str
    train: Tokens
    heldout: Tokens
    digest: str
    files: int
    heldout_files: int
    left_out: int
    documents: Documents | None = None
    heldout_documents: Documents | None = None
    """Both are given where windows respect documents; then batches are padded with -1."""
    vocab: int = 256
    tokenizer: str = ""
    """The text of the `tokenizer.json`, where a token is not a byte."""
    bytes_per_token: tuple[float, float] = (1.0, 1.0)
    """Of the training and of the held-out part: what turns bits per token into bits per byte."""
    classes: int = 0
    """Of labels, where tokens have some: then a window is `[length, 2]`, and bits are per label."""

    def batch(self, *, seed: int, step: int, batch: int, length: int) -> Windows:
        """The windows `[batch, length + 1]` that step `step` trains on: a pure function of its arguments."""
        # Philox is counter-based, and its raw stream (unlike `Generator`) is frozen across numpy versions.
        raw = np.random.Philox(key=[seed & (2**64 - 1), step]).random_raw(batch)
        if self.documents is not None:
            return self.documents.drawn(raw, length)
        starts = (raw % np.uint64(len(self.train) - length)).astype(np.int64)
        return np.stack([self.train[s : s + length + 1] for s in starts])

    def read_on(
        self, *, seed: int, step: int, batch: int, length: int
    ) -> tuple[Windows, npt.NDArray[np.bool_]]:
        """The windows of a step whose rows read on, and which begin a document; bytes without documents
        are one.
        """
        whole = Documents(self.train, np.array([0, len(self.train)], dtype=np.int64))
        return (self.documents or whole).read_on(step=step, rows=batch, length=length, seed=seed)

    def heldout_windows(self, *, length: int, limit: int) -> Windows:
        """At most `limit` windows `[n, length + 1]`, evenly spread over the held-out tokens."""
        if self.heldout_documents is not None:
            return self.heldout_documents.spread(length=length, limit=limit)
        available = (len(self.heldout) - 1) // length
        count = min(limit, available)
        chosen = np.arange(count, dtype=np.int64) * available // count
        return np.stack([self.heldout[c * length : c * length + length + 1] for c in chosen])

    def require_length(self, length: int) -> None:
        """Raise NL0954 unless both shards hold a window of `length` predictions (of any, by document)."""
        if self.documents is not None and self.heldout_documents is not None:
            if not (self.documents.predictions and self.heldout_documents.predictions):
                raise fault("NL0954", f"no document with two bytes in a part of `{self.name}`")
            return
        for part, data in (("training", self.train), ("held-out", self.heldout)):
            if len(data) < length + 1:
                kind = "tokens" if self.tokenizer else "bytes"
                raise fault(
                    "NL0954",
                    f"{len(data)} {part} {kind} in `{self.name}`, and a window needs {length + 1}",
                    help=f"both parts together hold {len(self.train) + len(self.heldout)} {kind}: "
                    "give more data, or a smaller `--length`",
                )


def prepare(source: str, folder: Path, *, length: int) -> Corpus:
    """Build the shards of `source` in `folder`, or open the ones that are there.

    `source` is a file (taken as raw bytes whatever it holds), a folder (its text files, recursively),
    `python-stdlib`, or a folder of `nldsl data prepare`, which is used where it is.  Raises `SpecError`
    with NL0951 (not found), NL0952 (unreadable), NL0953 (nothing in it), NL0954 (too short) or NL0955
    (shards damaged or of another source).
    """
    if is_prepared(source):
        corpus = open_prepared(source)
        corpus.require_length(length)
        return corpus
    if not (folder / "corpus.json").is_file():
        found = discover(source)
        if not found.files:
            raise fault(
                "NL0953",
                f"`{source}` holds no bytes to train on",
                help="give a file that is not empty, or a folder with text files",
            )
        write_shards(found, folder, length)
    corpus = open_corpus(folder, source)
    corpus.require_length(length)
    return corpus


def open_corpus(folder: Path, source: str) -> Corpus:
    """Open the shards in `folder`, which must have been made from `source` and be whole."""
    try:
        about: dict[str, Any] = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        of, digest = about["source"], about["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise fault(
            "NL0955",
            f"`{folder / 'corpus.json'}` cannot be read: {error}",
            help=f"delete `{folder}` and run again",
        ) from error
    if of != source:
        raise fault(
            "NL0955",
            f"the run's data come from `{of}`, not from `{source}`",
            help="use another `--out`, or the same `--data`",
        )
    if shard_digest(folder) != digest:
        raise fault(
            "NL0955", f"the data shards in `{folder}` are damaged", help=f"delete `{folder}` and run again"
        )
    return Corpus(
        name=source,
        train=map_tokens(folder / "train.bin"),
        heldout=map_tokens(folder / "heldout.bin"),
        digest=digest,
        files=about["files"],
        heldout_files=about["heldout_files"],
        left_out=about["left_out"],
    )


def open_prepared(source: str) -> Corpus:
    """The corpus of a folder of `nldsl data prepare`.  Raises NL0955 if it is damaged."""
    folder = Path(source)
    about = read_sidecar(folder)
    parts = about["parts"]
    train, heldout = (map_tokens(folder / f"{part}.bin", about["dtype"]) for part in ("train", "heldout"))
    cut: list[Documents | None] = [None, None]
    if about["documents"] == "respected":
        offsets = [np.fromfile(folder / f"{part}.offsets", dtype="<i8") for part in ("train", "heldout")]
        labels: list[Any] = [None, None]
        if "labels" in about:
            labels = [map_tokens(folder / f"{part}.labels", "<i4") for part in ("train", "heldout")]
        cut = [Documents(train, offsets[0], labels[0]), Documents(heldout, offsets[1], labels[1])]
    classes = int(about["labels"]["classes"]) if "labels" in about else 0
    named = [] if about["tokenizer"] == BYTES else [about["tokenizer"]]
    digests = [
        *named,
        about["documents"],
        *(parts[p][d] for p in parts for _, d in checked(about)),
    ]
    return Corpus(
        name=source,
        train=train,
        heldout=heldout,
        digest=sha256("|".join(digests).encode()).hexdigest(),
        files=parts["train"]["documents"] + parts["heldout"]["documents"],
        heldout_files=parts["heldout"]["documents"],
        left_out=about["left_out"],
        documents=cut[0],
        heldout_documents=cut[1],
        vocab=about["vocab"],
        tokenizer=(folder / TOKENIZER).read_text(encoding="utf-8") if named else "",
        bytes_per_token=(1.0, 1.0) if classes else (per_token(parts["train"]), per_token(parts["heldout"])),
        classes=classes,
    )


def per_token(part: dict[str, Any]) -> float:
    """Bytes of text per token of a part of prepared data."""
    return float(part["bytes"]) / max(1, int(part["tokens"]))


def map_tokens(path: Path, dtype: str = "uint8") -> Tokens:
    """The tokens of a file as a read-only memory map; an empty array if the file is empty."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def shard_digest(folder: Path) -> str:
    """The sha256 of the two shards, one after the other."""
    digest = sha256()
    for name in ("train.bin", "heldout.bin"):
        path = folder / name
        if not path.is_file():
            return ""
        with path.open("rb") as shard:
            while piece := shard.read(COPY):
                digest.update(piece)
        digest.update(b"|")
    return digest.hexdigest()


def share(name: str) -> float:
    """A number in [0, 1) that depends on `name` only, spread evenly over names.

    Example:
        >>> 0 <= share("a.py") < 1 and share("a.py") == share("a.py")
        True
    """
    return int.from_bytes(sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64


def held_out_files(names: list[str]) -> set[str]:
    """The names whose hash falls in the first 5 %; the smallest hash if none does."""
    chosen = {name for name in names if share(name) < HELD_OUT_SHARE}
    return chosen or {min(names, key=share)}


def held_out_blocks(total: int, length: int) -> tuple[int, set[int]]:
    """Block size and the indices of held-out blocks when `total` bytes are split by block.

    A block is a hundredth of the bytes, between 1 KiB (but at least one window) and 64 KiB.  Where that were
    the only block it is one window, so that something is left to train on.
    """
    size = max(min(max(total // BLOCKS, SMALLEST_BLOCK), LARGEST_BLOCK), length + 1)
    if total < 2 * size:
        size = length + 1
    names = [f"block {i}" for i in range(max(1, total // size))]
    chosen = held_out_files(names)
    return size, {i for i, name in enumerate(names) if name in chosen}


def write_shards(found: Found, folder: Path, length: int) -> None:
    """Write `train.bin`, `heldout.bin` and, last, `corpus.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    by_file = len(found.files) >= FEWEST_FILES
    chosen = held_out_files([name for name, _ in found.files]) if by_file else set()
    with (folder / "train.bin").open("wb") as train, (folder / "heldout.bin").open("wb") as heldout:
        if by_file:
            for name, path in found.files:
                target = heldout if name in chosen else train
                target.writelines(pieces(path, COPY))
        else:
            size, blocks = held_out_blocks(sum(path.stat().st_size for _, path in found.files), length)
            for index, piece in enumerate(rechunk(found, size)):
                (heldout if index in blocks else train).write(piece)
    about = {
        "source": found.source,
        "digest": shard_digest(folder),
        "split": "files" if by_file else "blocks",
        "files": len(found.files),
        "heldout_files": len(chosen),
        "left_out": found.left_out,
        "train_bytes": os.path.getsize(folder / "train.bin"),
        "heldout_bytes": os.path.getsize(folder / "heldout.bin"),
    }
    write_text(folder / "corpus.json", json.dumps(about, indent=2) + "\n")


def pieces(path: Path, size: int) -> Iterator[bytes]:
    """The bytes of a file in pieces of `size`."""
    try:
        with path.open("rb") as file:
            while piece := file.read(size):
                yield piece
    except OSError as error:
        raise refusal(path, error) from error


def rechunk(found: Found, size: int) -> Iterator[bytes]:
    """All bytes of all files, one after the other, in blocks of exactly `size` (the last may be shorter)."""
    held = b""
    for _, path in found.files:
        for piece in pieces(path, max(size, COPY)):
            held += piece
            while len(held) >= size:
                yield held[:size]
                held = held[size:]
    if held:
        yield held
