"""The parser's tables, kept between processes: building them takes longer than checking most programs.

They lie in the user's cache folder (`$XDG_CACHE_HOME/nldsl`, else `~/.cache/nldsl`), named by the digest of
all they depend on.  Whatever is wrong there (missing, damaged, not writable) costs the time to build them.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import lark
from lark import Lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

_FORMAT = 1


def kept(grammar: str, starts: tuple[str, ...], build: Callable[[], Lark]) -> Lark:
    """The parser of `grammar`: from the cache if it is there, else built and put there."""
    parts = (str(_FORMAT), lark.__version__, platform.python_version(), grammar, *starts)
    path = folder() / f"{sha256(chr(0).join(parts).encode()).hexdigest()[:32]}.json"
    parser = _read(path)
    if parser is None:
        parser = build()
        _write(path, parser)
    return parser


def folder() -> Path:
    """Where tables are kept."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if base and Path(base).is_absolute() else Path(os.path.expanduser("~"), ".cache")
    return home / "nldsl"


def _read(path: Path) -> Lark | None:
    try:
        data, memo = _decoded(json.loads(path.read_text(encoding="utf-8")))
        parser: Lark = Lark.__new__(Lark)._load_from_dict(data, memo)  # type: ignore[no-untyped-call]
        return parser
    except Exception:  # a damaged file may fail anywhere; it is as good as none
        return None


def _write(path: Path, parser: Lark) -> None:
    data = parser.memo_serialize([TerminalDef, Rule])
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(_encoded(data), file, separators=(",", ":"))
        os.replace(temporary, path)


def _encoded(value: Any) -> Any:
    """JSON has text keys and no tuples: a mapping becomes a list of pairs behind a mark."""
    if isinstance(value, dict):
        return {"d": [[_encoded(k), _encoded(v)] for k, v in value.items()]}
    if isinstance(value, list | tuple | set | frozenset):
        return [_encoded(v) for v in value]
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {_decoded(k): _decoded(v) for k, v in value["d"]}
    if isinstance(value, list):
        return [_decoded(v) for v in value]
    return value
