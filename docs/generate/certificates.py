"""Certificates of verification: stored beside the documentation, shown while the program is the same.

A certificate compares compiled form and interpreter and takes seconds to a minute, so it is made once per
program and kept in `docs/certificates`.  Comments and layout are no part of a program:

    python -m docs.generate.certificates          # makes the ones that are missing or of another text
    python -m docs.generate.certificates hope     # these, in any case
    python -m docs.generate.certificates --list   # which are missing
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from docs.generate.library import ROOT, Spec, specs
from docs.generate.markdown import count, table
from docs.generate.probes import opens, shown
from nldsl.diagnostics import SpecError
from nldsl.lowerings.forms import plan_program
from nldsl.spec.program import Program

STORE = ROOT / "docs" / "certificates"


def path_of(spec: Spec) -> Path:
    """Where the certificate of a file is kept."""
    return STORE / Path(spec.place).with_suffix(".json")


def fingerprint(program: Program) -> str:
    """The program itself: places in the text and comments are no part of it."""
    return hashlib.sha256(repr(program.root).encode()).hexdigest()


def stored(spec: Spec, program: Program) -> dict[str, Any] | None:
    """The certificate of exactly this program, if there is one."""
    path = path_of(spec)
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return dict(found["certificate"]) if found["of"] == fingerprint(program) else None


def missing() -> list[Spec]:
    """Files whose program the compiler takes and no stored certificate is of."""
    found = []
    for spec in specs():
        program = opens(spec)
        if not isinstance(program, SpecError) and compiles(program) and stored(spec, program) is None:
            found.append(spec)
    return found


def compiles(program: Program) -> bool:
    """Whether the compiler takes a program."""
    try:
        plan_program(program)
    except SpecError:
        return False
    return True


def certify(spec: Spec) -> bool:
    """Verify a file and store its certificate if it passed; whether it did."""
    from nldsl.certify import verify

    what, program = shown(spec), opens(spec)
    assert isinstance(program, Program)
    certificate = verify(what.source, block=what.block, **dict(what.arguments))
    if not certificate.passed:
        print(certificate.text())
        return False
    data = certificate.to_json() | {"seconds": None}
    path = path_of(spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"of": fingerprint(program), "certificate": data}
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return certificate.passed


def certificate_table(spec: Spec, program: Program) -> str:
    """The certificate as tables, one per set of clocks."""
    found = stored(spec, program)
    if found is None:
        return (
            f"No certificate of this text is stored; `nldsl verify {spec.stem}` makes one"
            f"{' for models and blocks' if spec.main[0] not in ('model', 'block') else ''}."
        )
    verdict = "agree" if found["passed"] else "**differ**"
    head = (
        f"Compiled form and interpreter {verdict} on a small twin of the program, in float64, from nldsl "
        f"{found['nldsl']} with torch {found['torch']}, seed {found['seed']}."
    )
    small = f"Made small: {', '.join(found['shrunk'])}." if found["shrunk"] else ""
    return "\n\n".join(p for p in (head, small, *(_section(s) for s in found["sections"])) if p)


def _section(section: dict[str, Any]) -> str:
    clocks = [f"{old} → {new}" for old, new in (section["clocks"] | section["task_clocks"]).items()]
    title = f"**Clocks: {section['name']}**" + (f" ({', '.join(clocks)})" if clocks else "")
    lengths = ", ".join(map(str, section["lengths"]))
    rows = [
        (
            check["name"],
            "passed" if check["passed"] else "FAILED",
            str(check["cases"]) if check["cases"] else "",
            "" if check["error"] is None else f"{check['error']:.1e}",
            f"{check['bound']:.0e}",
            check["note"] or check["where"],
        )
        for check in section["checks"]
    ]
    body = table(("check", "result", "cases", "worst", "allowed", "where"), rows)
    return f"{title}: {count(section['tokens'], 'token')}, lengths {lengths}.\n\n{body}"


def main(arguments: list[str]) -> int:
    """Make certificates; the exit code is 1 if one did not pass."""
    wanted = [s for s in specs() if s.stem in arguments] if arguments else missing()
    if "--list" in arguments:
        print("\n".join(s.place for s in missing()) or "every certificate is of the text that is there")
        return 0
    import torch

    torch.set_num_threads(1)
    failed = 0
    for spec in wanted:
        passed = certify(spec)
        failed += not passed
        print(f"{spec.place}: {'passed' if passed else 'FAILED'}", flush=True)
    for path in sorted(STORE.rglob("*.json")):
        if path not in {path_of(spec) for spec in specs()}:
            path.unlink()
            print(f"{path.relative_to(STORE)}: its specification is gone")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
