"""What a hostile author would try: every attack is a finding, quick and small, on the command line itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.property.test_fuzz_spec import BOMBS, mutated

MEGABYTES, SECONDS = 500, 2.0
BLOCK = "block f(x) {{ {0}\nreturn x }}\n"


def yaml(body: str) -> str:
    return f"nldsl: 1\n{body}\n"


LAUGHS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10) or 'lol'}]\n" for i in range(1, 12))
ATTACKS = {
    "alias bomb.yaml": yaml('a0: &a0 ["lol"]\n' + LAUGHS),
    "alias of itself.yaml": yaml("block f: &a\n  takes: [x]\n  body: [*a]"),
    "merge keys.yaml": yaml("base: &b {takes: [x]}\nblock f:\n  <<: *b\n  body: [return x]"),
    "nested sequences.yaml": yaml("a: " + "[" * 100_000 + "]" * 100_000),
    "nested mappings.yaml": yaml("a: " + "{a: " * 100_000),
    "nested indent.yaml": yaml("".join(" " * i + "a:\n" for i in range(1_400))),
    "nested parentheses.nl": BLOCK.format("y = " + "(" * 100_000 + "x" + ")" * 100_000),
    "nested braces.nl": "block f(x) " + "{" * 100_000,
    "nested lists.nl": BLOCK.format("y = " + "[" * 100_000),
    "nested calls.nl": BLOCK.format("y = " + "silu(" * 100_000 + "x" + ")" * 100_000),
    "nested signs.nl": BLOCK.format("y = " + "-" * 100_000 + "x"),
    "nested repeats.nl": BLOCK.format("repeat 2 { " * 100_000 + "}" * 100_000),
    "duplicate keys.yaml": yaml("block f: {takes: [x], takes: [y], body: [return x]}"),
    "duplicate blocks.yaml": yaml(
        "block f: {takes: [x], body: [return x]}\nblock f: {takes: [x], body: [return x]}"
    ),
    "python tag.yaml": yaml("a: !!python/object/apply:os.system ['touch owned']"),
    "own tag.yaml": yaml("block f: !block {takes: [x], body: [return x]}"),
    "binary tag.yaml": yaml("a: !!binary aGVsbG8="),
    "use above.nl": 'use "../../x"\n' + BLOCK.format("y = x"),
    "use above with an ending.nl": 'use "../../x.nl"\n' + BLOCK.format("y = x"),
    "use absolute.nl": 'use "/etc/passwd"\n' + BLOCK.format("y = x"),
    "use itself.nl": 'use "use itself.nl"\n' + BLOCK.format("y = x"),
    "use above.yaml": yaml('use: ["../../x.nl"]\nblock f: {takes: [x], body: [return x]}'),
    "name with a quote.yaml": yaml('"block f\\"); import os; (\\"": {takes: [x], body: [return x]}'),
    "name with a line end.yaml": yaml('"block f\\nimport os": {takes: [x], body: [return x]}'),
    "input with a line end.yaml": yaml('block f: {takes: ["x\\n): pass"], body: [return x]}'),
    "statement with a quote.yaml": yaml(
        'block f: {takes: [x], body: ["y = \\"\\"\\"\\nimport os", return y]}'
    ),
    "huge repeat.nl": BLOCK.format("repeat 1000000000 { x = x + linear(x) }"),
    "huge repeat.yaml": yaml(
        "block f: {takes: [x], body: [{repeat: 1000000000, body: [x = 2 * x]}, return x]}"
    ),
    "huge dimension.nl": BLOCK.format("y = linear(x, 1000000000000)"),
    "huge float dimension.nl": BLOCK.format("y = linear(x, 1e12)"),
    "huge model.nl": "model m(tokens) { return head(embed(tokens, 1000000000000, 1000000000000), 2) }\n",
    "huge memory.nl": BLOCK.format(
        "level l every 1 token { memory S = matrix(out = 1000000000000) }\nS[x] <- x by gd(lr = 1)"
    ),
    "huge clock.nl": BLOCK.format("level l every " + "9" * 5000 + " tokens { memory S = matrix() }"),
    "huge number.nl": BLOCK.format("y = x * " + "9" * 100_000),
    "huge list.nl": BLOCK.format("for i in [" + "1, " * 100_000 + "1] { x = x + i }"),
}
"""File name -> text.  Every one is refused."""

CHILD = """
import json, pathlib, resource, sys, time
from nldsl.cli import main
def peak():
    # Linux counts the parent's size before the program was started into ru_maxrss.
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
rows = []
for name in sys.argv[1:]:
    start = time.process_time()
    try:
        main(["check", name, "--json"])
    except SystemExit as left:
        code = left.code
    rows.append((name, code, time.process_time() - start))
    print("\\f")
print(json.dumps({"rows": rows, "megabytes": peak()}))
"""


def check_all(folder: Path, texts: dict[str, str]) -> list[dict[str, object]]:
    """`nldsl check` on all texts in one process of its own, within the limits; their reports."""
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *texts], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stdout + done.stderr
    assert "NL1000" not in done.stdout + done.stderr
    *reports, summary = done.stdout.split("\f\n")
    measured = json.loads(summary)
    assert measured["megabytes"] < MEGABYTES
    slow = [(name, seconds) for name, _, seconds in measured["rows"][1:] if seconds > SECONDS]
    assert not slow
    assert {code for _, code, _ in measured["rows"]} <= {0, 1}
    return [json.loads(report) for report in reports]


def test_every_attack_is_a_finding(tmp_path: Path) -> None:
    for name, report in zip(ATTACKS, check_all(tmp_path, ATTACKS), strict=True):
        assert report["errors"], f"{name} is accepted"
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(("start", "count"), [(0, 60), pytest.param(6000, 1000, marks=pytest.mark.long)])
def test_mutated_texts_stay_small(start: int, count: int, tmp_path: Path) -> None:
    texts = {f"{seed}.nl": mutated(seed) for seed in range(start, start + count)}
    texts |= {f"bomb {i}.nl": bomb + "\n" for i, bomb in enumerate(BOMBS)}
    assert len(check_all(tmp_path, texts)) == len(texts)
