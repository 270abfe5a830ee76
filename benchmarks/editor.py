"""`check` and the editor: seconds of a whole check and to a server's first findings, milliseconds per key.

    python -m benchmarks.editor [--rounds 3]

A key is a character put into a block in the middle of the file: the text is cut, parsed, elaborated as far
as the change reaches, and every finding is worked out.  Times are CPU times on one thread; the start is also
given as the time a client waits, over stdio and with the imports of a fresh process.  The best of the rounds.
Ends with an error if one of them is over its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import heading
from nldsl.assets import specs_folder
from nldsl.server.completion import complete
from nldsl.server.document import Document
from nldsl.server.hover import hover

LINES = 300
CHECK_LIMIT, FIRST_LIMIT, KEY_LIMIT = 0.6, 1.0, 0.050
TYPED = "  probe = linear(x) * sigmoid(linear(x))\n"
"""What is typed, key by key, as the first statement of a block."""


@dataclass(frozen=True)
class Typing:
    """CPU seconds per key."""

    median: float
    slow: float
    """Slower than 19 of 20."""
    hover: float
    completion: float


def long_spec(lines: int = LINES) -> str:
    """A specification of about `lines` lines: the library's blocks and models in one file."""
    parts: list[str] = []
    for folder in ("blocks", "models", "rules", "objectives", "maps"):
        for path in sorted((specs_folder() / folder).glob("*.nl")):
            parts.append(path.read_text(encoding="utf-8"))
            if sum(part.count("\n") for part in parts) >= lines:
                return "".join(parts)
    return "".join(parts)


def type_keys(text: str) -> Typing:
    """Type a statement into a block that a model calls, key by key."""
    document = Document("long.nl", text)
    _ = document.remarks
    at = text.index("{\n", text.index("block cms(")) + 2
    keys: list[float] = []
    for end in range(1, len(TYPED) + 1):
        started = time.process_time()
        document.update(text[:at] + TYPED[:end] + text[at:])
        _ = document.remarks
        keys.append(time.process_time() - started)
    started = time.process_time()
    hover(document, at + 3)
    hovered = time.process_time()
    complete(document, at + len(TYPED) - 4)
    return Typing(
        statistics.median(keys),
        statistics.quantiles(keys, n=20)[-1],
        hovered - started,
        time.process_time() - hovered,
    )


async def first_findings(text: str) -> tuple[float, float]:
    """Seconds of waiting, and CPU seconds, from the start of a server to its first findings."""
    from lsprotocol import types as lsp
    from pygls.lsp.client import LanguageClient

    client = LanguageClient("bench", "1")
    said: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def published(_: lsp.PublishDiagnosticsParams) -> None:
        if not said.done():
            said.set_result(time.perf_counter())

    client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(published)
    started = time.perf_counter()
    await client.start_io(sys.executable, "-m", "nldsl", "server")
    await client.initialize_async(lsp.InitializeParams(capabilities=lsp.ClientCapabilities()))
    client.initialized(lsp.InitializedParams())
    item = lsp.TextDocumentItem(Path("long.nl").absolute().as_uri(), "nldsl", 1, text)
    client.text_document_did_open(lsp.DidOpenTextDocumentParams(item))
    waited = await asyncio.wait_for(said, 60) - started
    server = client._server
    used = cpu_seconds(server.pid) if server is not None else waited
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()
    return waited, used


def check_seconds() -> float:
    """CPU seconds of `nldsl check hope`, a process of its own from start to end."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "nldsl", "check", "hope"], check=True, capture_output=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def cpu_seconds(process: int) -> float:
    """CPU seconds of a running process so far; infinity where the system does not say."""
    stat = Path(f"/proc/{process}/stat")
    if not stat.exists():
        return float("inf")
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def report(rounds: int = 3) -> list[str]:
    """Print the figures; what is over its limit."""
    heading(__doc__)
    text = long_spec()
    checked = min(check_seconds() for _ in range(2 * rounds))
    print(f"check hope: {checked:.2f} s CPU (limit {CHECK_LIMIT} s)")
    starts = [asyncio.run(first_findings(text)) for _ in range(rounds)]
    waited, used = min(w for w, _ in starts), min(c for _, c in starts)
    keys = min((type_keys(text) for _ in range(rounds)), key=lambda k: k.median)
    print(f"editor, {text.count(chr(10))} lines")
    print(
        f"  first findings of a new server: {waited:.2f} s waited, {used:.2f} s CPU (limit {FIRST_LIMIT} s)"
    )
    print(
        f"  per key: {keys.median * 1e3:.1f} ms median, {keys.slow * 1e3:.1f} ms slower than 19 of 20 "
        f"(limit {KEY_LIMIT * 1e3:.0f} ms)"
    )
    print(f"  hover {keys.hover * 1e3:6.1f} ms  completion {keys.completion * 1e3:6.1f} ms")
    limits = {
        "check": (checked, CHECK_LIMIT),
        "first findings": (min(waited, used), FIRST_LIMIT),
        "per key": (keys.slow, KEY_LIMIT),
    }
    return [name for name, (found, limit) in limits.items() if found > limit]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    over = report(parser.parse_args().rounds)
    sys.exit(f"over the limit: {', '.join(over)}" if over else 0)
