"""Decoding without end: constant memory, and commands that show what comes as it comes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import nldsl
from nldsl.cli.app import main
from nldsl.evaluate import Sampling, Session
from nldsl.train import train

torch.set_num_threads(1)
DECODE = """
import json, re, sys, time
from pathlib import Path
import torch
import nldsl
from nldsl.evaluate import Sampling

def memory(kind):
    return int(re.search(kind + r":\\\\s+(\\\\d+) kB", Path("/proc/self/status").read_text()).group(1))

torch.set_num_threads(1)
name, count = sys.argv[1], int(sys.argv[2])
session = nldsl.evaluate.Session(nldsl.compile(name, dim=8, depth=1, heads=2))
size, tenth, found = session.bytes, count // 10, []
begin = time.perf_counter()
for number, _ in enumerate(session.generate(count, Sampling(seed=1)), 1):
    if number == tenth:  # what the first tokens touch is touched; from here on the peak is that of decoding
        Path("/proc/self/clear_refs").write_text("5")
        first, early = memory("VmHWM"), (time.perf_counter() - begin) / tenth
    if number == count - tenth:
        late = time.perf_counter()
late = (time.perf_counter() - late) / tenth
print(json.dumps({"bytes": [size, session.bytes], "position": session.position,
                  "kB": [first, memory("VmHWM")], "seconds": [early, late]}))
"""


def decode(name: str, count: int) -> None:
    """Decode in a process of its own; its peak of memory must not move after the first tenth."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the system does not tell the peak of memory")
    command = [sys.executable, "-c", DECODE.replace("\\\\", "\\"), name, str(count)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    print(f"{name}, {count:,} tokens: {found}")
    assert found["bytes"][0] == found["bytes"][1] and found["position"] >= count
    assert found["kB"][1] - found["kB"][0] < 4096, found


def test_two_thousand_tokens_at_constant_memory() -> None:
    decode("gated_deltanet", 2000)


@pytest.mark.long
@pytest.mark.parametrize("name", ["gated_deltanet", "hope_tiny"])
def test_a_hundred_thousand_tokens_at_constant_memory(name: str) -> None:
    decode(name, 100_000)


def test_many_sessions_in_one_batch_are_as_each_alone() -> None:
    model = nldsl.compile("hope_tiny", dim=8, depth=1, heads=2)
    texts = [b"one session", b"another, longer one", b"x"]
    sessions = [Session(model) for _ in texts]
    for session, text in zip(sessions, texts, strict=True):
        session.feed(text)
    together = sessions[0].merge(*sessions[1:])
    assert together.batch == 3 and together.bytes == sessions[0].bytes
    tokens = torch.tensor([[97], [98], [99]])
    logits = together.feed(tokens)
    for row, session in enumerate(sessions):
        torch.testing.assert_close(session.feed(tokens[row : row + 1])[0], logits[row], atol=1e-5, rtol=1e-4)
    greedy = [list(s.generate(5, Sampling(temperature=0))) for s in together.split()]
    assert greedy == [list(s.generate(5, Sampling(temperature=0))) for s in sessions]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streaming")
    (folder / "text.txt").write_text("to be or not to be, that is the question. " * 200)
    sizes = {"dim": 8, "depth": 1, "heads": 2}
    asked = {"data": str(folder / "text.txt"), "steps": 1, "batch": 2, "length": 16}
    train("hope_tiny", out=folder / "run", arguments=dict(sizes), show=False, **asked)
    return folder / "run"


def terminal(*arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """A command whose input and output are a terminal, and our end of it."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "nldsl", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    return process, ours


def until(ours: int, wanted: bytes) -> bytes:
    """What a terminal shows up to and with `wanted`."""
    shown, end = b"", time.monotonic() + 120
    while wanted not in shown and time.monotonic() < end:
        shown += os.read(ours, 1)
    assert wanted in shown
    return shown


def test_what_cannot_go_on_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("to be or not to be. " * 400)
    (tmp_path / "short").write_text("a")
    sizes = {"dim": 8, "depth": 1, "heads": 2}
    asked = {"data": str(tmp_path / "text.txt"), "steps": 1, "batch": 2, "length": 16, "show": False}
    train("gated_deltanet", out=tmp_path / "still", arguments=dict(sizes), **asked)
    nldsl.load(tmp_path / "still").session().save(tmp_path / "state")
    for code, words in {
        "NL1027": ("run", tmp_path / "still", "--online", tmp_path / "text.txt"),
        "NL1028": ("run", run, "--online", tmp_path / "short"),
        "NL1029": ("chat", run, "--load", tmp_path / "state"),
    }.items():
        with pytest.raises(SystemExit) as leaving:
            main([str(word) for word in words])
        assert leaving.value.code == 2 and f"error[{code}]" in capsys.readouterr().err


def test_generate_shows_bytes_before_it_ends(run: Path) -> None:
    process, ours = terminal("generate", str(run), "-n", "1000000", "--temperature", "0")
    try:
        first = os.read(ours, 1)
        assert first and process.poll() is None, "the first byte is there long before the last"
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_chat_answers_in_a_terminal(run: Path, tmp_path: Path) -> None:
    process, ours = terminal("chat", str(run), "-n", "5", "--save", str(tmp_path / "state"))
    try:
        assert b"bytes" in until(ours, b"> "), "the size of the session is told"
        os.write(ours, b"hello\n")
        until(ours, b"> ")
        os.write(ours, b"\x04")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert nldsl.load(run).session().load(tmp_path / "state").bytes > 0
