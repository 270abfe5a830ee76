"""What one types: examples of every command.  The tests run all of them, in this order, in one folder.

`import` finds a small Llama of transformers there, in `llama`.
"""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "new": ("new mine", "new small --kind model"),
    "check": ("check mine.nl", "check hope", "check hope --set depth=2 --json"),
    "fmt": ("fmt mine.nl", "fmt --check mine.nl"),
    "migrate": ("migrate --check mine.nl",),
    "convert": ("convert mine.nl -o mine.yaml", "convert mine.yaml"),
    "explain": ("explain gated_deltanet", "explain adamw", "explain hope --params", "explain hope --latex"),
    "diff": ("diff hope hope",),
    "ablate": ("ablate hope",),
    "graph": ("graph hope_tiny -o hope_tiny.svg", "graph hope -o hope.html", "graph hope --format mmd"),
    "timeline": ("timeline hope_tiny", "timeline hope -o hope_timeline.svg"),
    "compile": (
        "compile gated_deltanet -o layers.py",
        "compile gated_deltanet --standalone -o alone.py",
        "compile swiglu --block swiglu --set dim=8 -o unit.py --verify",
    ),
    "verify": ("verify linear_attention --block linear_attention --set dim=8 --export", "verify unit.py"),
    "test": ("test linear_attention --block linear_attention --set dim=8 --examples 2",),
    "bisect": ("bisect linear_attention --block linear_attention --set dim=8 --tokens 5",),
    "plan": ("plan gated_deltanet --batch 4 --length 512 --set dim=32 --set depth=1 --set heads=2",),
    "data": (
        "data prepare mine.nl layers.py alone.py --out texts --heldout 0.3",
        "data tokenizer layers.py alone.py --out tokenizer.json --vocab 300",
    ),
    "train": (
        "train gated_deltanet --steps 2 --batch 2 --length 32 --set dim=32 --set depth=1 --set "
        "heads=2 --out run",
        "train gated_deltanet --resume --steps 3 --batch 2 --length 32 --set dim=32 --set depth=1 "
        "--set heads=2 "
        "--out run",
        "train hope_tiny --data texts --steps 1 --batch 2 --length 32 --set dim=16 --set depth=1 "
        "--out online",
    ),
    "plot": ("plot run online -o runs.svg --by tokens",),
    "generate": ('generate run --prompt "def " --bytes 8',),
    "run": ("run online --online mine.nl --segment 64",),
    "export": ("export run --to hf -o hub", "export run --to torch -o programs"),
    "import": ("import hf:llama --out brought --stack 'cms(chunks = [4, 8])'",),
    "list": ("list", "list rules"),
    "doctor": ("doctor",),
    "version": ("version",),
}
