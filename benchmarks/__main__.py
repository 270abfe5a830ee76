"""All benchmarks, one after the other: `python -m benchmarks [NAME ...]`; `--list` names them."""

from __future__ import annotations

import argparse
import pkgutil
import subprocess
import sys

import benchmarks

SILENT = {
    "__main__",
    "measure",
    "hope_step",
    "loglog",
    "peer",
    "peers_transformers",
    "peers_titans",
    "peers_nested",
    "hand_loops",
}
"""Modules others are made of."""
SHOWN_ON_REQUEST = {"choices"}
"""Long comparisons behind choices that have been made."""


def names() -> list[str]:
    """Every benchmark of this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in SILENT)


def main() -> int:
    """Run the named benchmarks, or all but the long comparisons, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names()))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(names())}")
    if options.list:
        print("\n".join(names()))
        return 0
    worst = 0
    for name in options.names or [n for n in names() if n not in SHOWN_ON_REQUEST]:
        print(f"== {name}", flush=True)
        worst = max(
            worst, subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode
        )
    return worst


if __name__ == "__main__":
    sys.exit(main())
