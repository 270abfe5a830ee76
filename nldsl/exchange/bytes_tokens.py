"""Bytes as tokens in the format of `tokenizers`: token n is byte n, any text goes through unchanged."""

from __future__ import annotations

import json
from typing import Any

PADDING = "\0"
"""What fills up a batch, and ends nothing: text does not hold it."""


def alphabet() -> list[str]:
    """The visible character that stands for each byte in a byte-level vocabulary (GPT-2's table).

    Example:
        >>> table = alphabet()
        >>> table[ord("a")], table[ord(" ")], len(set(table))
        ('a', 'Ġ', 256)
    """
    shown = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) if byte in shown else chr(256 + hidden.index(byte)) for byte in range(256)]


def tokenizer_json() -> str:
    """`tokenizer.json`: a byte-level vocabulary without merges."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    body: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": 0, "content": PADDING, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # Byte 0 goes by its own name, as padding; every other byte by its visible character.
            "vocab": {PADDING if byte == 0 else char: byte for byte, char in enumerate(alphabet())},
            "merges": [],
        },
    }
    return json.dumps(body, ensure_ascii=False, indent=1) + "\n"


def tokenizer_config(length: int) -> str:
    """`tokenizer_config.json`: how `transformers` opens it."""
    body = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": length,
        "pad_token": PADDING,
        "eos_token": PADDING,
        "padding_side": "left",
    }
    return json.dumps(body, indent=1) + "\n"
