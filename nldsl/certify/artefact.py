"""A compiled file and the certificate beside it: what was verified, and whether the file is still that.

`x.py` has its certificate in `x.certificate.json`: the digest of the file as it was written, what `verify`
found out about the program, and the digest of that.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nldsl.assets import specs_folder
from nldsl.certify.shrink import shrink
from nldsl.emit.loader import load_module
from nldsl.runtime.model import Layer

SCHEMA = 2


class CertificateError(ValueError):
    """A certificate that is not one, or not of this program; the message says why."""


class CertificateWarning(UserWarning):
    """A compiled file is not what its certificate is of."""


@dataclass(frozen=True)
class Standing:
    """What the certificate of a compiled file is worth: `problems` is empty if it holds."""

    file: str
    certificate: dict[str, Any]
    problems: tuple[str, ...]

    def text(self) -> str:
        """One line, or one per problem."""
        if self.problems:
            return "\n".join(f"{self.file}: the certificate does not match: {p}" for p in self.problems)
        found = self.certificate
        checks = sum(len(s["checks"]) for s in found["sections"])
        return (
            f"{self.file}: as certified: `{found['spec']}`, {checks} checks passed (nldsl {found['nldsl']}, "
            f"torch {found['torch']}, seed {found['seed']})"
        )


def digest(text: str) -> str:
    """The sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def beside(path: str | Path) -> Path:
    """Where the certificate of a compiled file is.

    Example:
        >>> beside("made/x.py").as_posix()
        'made/x.certificate.json'
    """
    return Path(path).with_suffix(".certificate.json")


def record(path: str | Path, text: str, certificate: dict[str, Any]) -> dict[str, Any]:
    """What stands beside the compiled file `path` with this text, as data for JSON."""
    return {
        "schema": SCHEMA,
        "file": Path(path).name,
        "sha256": digest(text),
        "certificate_sha256": digest(_spelt(certificate)),
        "certificate": certificate,
    }


def _spelt(certificate: dict[str, Any]) -> str:
    """A certificate as one text: the same whatever the file it stood in looked like."""
    return json.dumps(certificate, sort_keys=True)


def check_fits(certificate: Any, source: str | Path, block: str | None, arguments: dict[str, Any]) -> None:
    """Whether a stored certificate is of this specification with these arguments, and passed.

    Errors: `CertificateError` if not; `SpecError` of the specification.
    """
    if (
        not isinstance(certificate, dict)
        or not {"program", "passed", "sections", "sources"} <= certificate.keys()
    ):
        raise CertificateError("it is no certificate of `nldsl verify`")
    small = shrink(source, block, arguments).program
    if certificate["program"] != digest(repr(small.root)):
        raise CertificateError(f"it is of another program than `{small.name}` with these arguments")
    if not certificate["passed"]:
        raise CertificateError("it says that the compiled form and the interpreter differ")


def standing(path: str | Path) -> Standing:
    """Hold a compiled file, and the texts it was made of as far as they are there, against its certificate.

    Errors: `OSError` for files that are not there; `CertificateError` for a record that cannot be read.
    """
    target = Path(path)
    text = target.read_text(encoding="utf-8")
    try:
        kept = json.loads(beside(target).read_text(encoding="utf-8"))
        certificate = dict(kept["certificate"])
        problems = [] if kept["sha256"] == digest(text) else ["the file was edited after it was written"]
        if kept["certificate_sha256"] != digest(_spelt(certificate)):
            problems.append("the certificate was edited after it was written")
        problems += _changed(dict(certificate["sources"]), target.parent)
        if not certificate["passed"]:
            problems.append("it did not pass")
        # Everything that is shown has to be there.
        found = Standing(target.name, certificate, tuple(problems))
        found.text()
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise CertificateError(f"`{beside(target)}` is no certificate of a compiled file") from wrong
    return found


def _changed(sources: dict[str, str], folder: Path) -> list[str]:
    """The texts that are other ones now."""
    problems = []
    for name, sha in sources.items():
        for place in (Path(name), folder / name, specs_folder() / name.removeprefix("specs/")):
            if place.is_file():
                if digest(place.read_text(encoding="utf-8")) != sha:
                    problems.append(f"`{name}` has changed since")
                break
    return problems


def load_compiled(path: str | Path, seed: int = 0) -> Layer:
    """The module of a compiled file; `.certificate` is its standing, `None` without a certificate.

    Warns with `CertificateWarning` where the certificate does not match.  Like any import it runs the file.

    Errors: `OSError`; `CertificateError` for a certificate that cannot be read.
    """
    target = Path(path)
    found = standing(target) if beside(target).is_file() else None
    if found is not None and found.problems:
        warnings.warn(found.text(), CertificateWarning, stacklevel=2)
    module: Layer = load_module(target.read_text(encoding="utf-8"), target.stem).build(seed)
    vars(module).update(certificate=found)
    return module
