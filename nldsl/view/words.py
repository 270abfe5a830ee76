"""Numbers and names as a table shows them."""

from __future__ import annotations

from collections.abc import Iterable

from nldsl.view.cost import Flops


def spoken_bytes(count: int) -> str:
    """A size in words.

    Example:
        >>> spoken_bytes(512), spoken_bytes(40_960)
        ('512 B', '40.0 KiB')
    """
    if count < 1024:
        return f"{count} B"
    power = 1
    while power < 3 and count >= 1024 ** (power + 1):
        power += 1
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"


def spoken_count(count: int) -> str:
    """A large number with a letter: thousands, millions, billions, trillions.

    Example:
        >>> spoken_count(950), spoken_count(28_672), spoken_count(3_100_000)
        ('950', '28.7 k', '3.10 M')
    """
    if count < 1000:
        return str(count)
    power = 0
    value = float(count)
    while value >= 999.5 and power < 4:
        value /= 1000
        power += 1
    return f"{value:.3g} {' kMGT'[power]}" if value >= 100 else f"{value:#.3g} {' kMGT'[power]}"


def spoken_flops(flops: Flops) -> str:
    """Operations per token; `n` is the length of the context.

    Example:
        >>> spoken_flops(Flops(28_672)), spoken_flops(Flops(0, 2048)), spoken_flops(Flops())
        ('28.7 k', '2.05 k n', '')
    """
    parts = [spoken_count(flops.fixed)] if flops.fixed else []
    if flops.per_context:
        parts.append(f"{spoken_count(flops.per_context)} n")
    return " + ".join(parts)


def spoken_state(fixed: int, growing: int) -> str:
    """Bytes of state, and what every token adds."""
    parts = [spoken_bytes(fixed)] if fixed else []
    if growing:
        parts.append(f"{spoken_bytes(growing)} n")
    return " + ".join(parts)


def short_names(ids: Iterable[str]) -> dict[str, str]:
    """The shortest tail of each id that no other has.

    Example:
        >>> short_names(["blocks[*].smt.M", "blocks[*].cms.M", "blocks[*].cms.F[0]"])
        {'blocks[*].smt.M': 'smt.M', 'blocks[*].cms.M': 'cms.M', 'blocks[*].cms.F[0]': 'F[0]'}
    """
    known = list(dict.fromkeys(ids))
    tails = {id: _tails(id) for id in known}
    counts: dict[str, int] = {}
    for every in tails.values():
        for tail in every:
            counts[tail] = counts.get(tail, 0) + 1
    return {id: next((t for t in every if counts[t] == 1), id) for id, every in tails.items()}


def _tails(id: str) -> list[str]:
    """Tails of an id, shortest first; `slow(a.b)` is cut inside its parentheses."""
    if id.startswith("slow(") and ")" in id:
        inner, _, rest = id.removeprefix("slow(").partition(")")
        return [f"slow({tail}){rest}" for tail in _tails(inner)]
    parts = id.split(".")
    if parts[0].startswith("train["):
        return [".".join(parts[1:]), id]
    return [".".join(parts[i:]) for i in reversed(range(len(parts)))]
