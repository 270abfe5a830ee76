"""Colours: one table for light, one for dark; pictures name colours by their role."""

from __future__ import annotations

LIGHT: dict[str, str] = {
    "paper": "#ffffff",
    "band-a": "#f5f7fa",
    "band-b": "#ebeff5",
    "rule": "#c9d1dc",
    "ink": "#17202e",
    "soft": "#55617a",
    "frame": "#8a94a8",
    "column": "#ffffff",
    "memory": "#ffffff",
    "memory-edge": "#3b5bdb",
    "task-memory": "#ffffff",
    "task-memory-edge": "#c2410c",
    "attention": "#fffdf0",
    "attention-edge": "#9a7200",
    "slow-parameters": "#e4e8ef",
    "slow-parameters-edge": "#55617a",
    "optimiser-memory": "#ffffff",
    "optimiser-memory-edge": "#7c8698",
    "port": "#17202e",
    "port-ink": "#ffffff",
    "condition": "#1c6fd1",
    "non-parametric": "#b88700",
    "backpropagate": "#d6336c",
    "initialise": "#2b8a3e",
    "generate": "#7a3fd0",
    "added": "#17803d",
    "removed": "#c92a2a",
    "changed": "#b35c00",
}

DARK: dict[str, str] = {
    "paper": "#10141b",
    "band-a": "#161c26",
    "band-b": "#1b2330",
    "rule": "#323d4f",
    "ink": "#e8edf5",
    "soft": "#9fadc4",
    "frame": "#6d7a92",
    "column": "#10141b",
    "memory": "#1e2a44",
    "memory-edge": "#7d9bff",
    "task-memory": "#33231b",
    "task-memory-edge": "#ff9257",
    "attention": "#302a12",
    "attention-edge": "#e6bd3a",
    "slow-parameters": "#2a3342",
    "slow-parameters-edge": "#93a1b8",
    "optimiser-memory": "#1a212c",
    "optimiser-memory-edge": "#8592a8",
    "port": "#e8edf5",
    "port-ink": "#10141b",
    "condition": "#5ba3ff",
    "non-parametric": "#e6bd3a",
    "backpropagate": "#ff6f9f",
    "initialise": "#5bcc77",
    "generate": "#b58cff",
    "added": "#4ade80",
    "removed": "#ff7b72",
    "changed": "#ffb454",
}

SANS = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', 'DejaVu Sans Condensed', sans-serif"
MONO = "'SFMono-Regular', Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"


def role(kind: str) -> str:
    """The colour role of a kind of problem: `task memory` -> `task-memory`."""
    return kind.replace(" ", "-")
