"""Pages that are made from the library, the catalogue, the command line, the docstrings and the paper."""

from __future__ import annotations

import doctest
import html
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import docs.generate
import nldsl
from docs.generate import tests_of as named
from docs.generate.certificates import fingerprint, path_of, stored
from docs.generate.citations import equation_map, map_page, other_papers, reading_map, readings_page
from docs.generate.codes import codes_index, stage_page, stages
from docs.generate.commands import _command, command_page, example_lines
from docs.generate.examples import EXAMPLES
from docs.generate.inspect import external
from docs.generate.library import Spec, citations, specs
from docs.generate.primitives import primitives_page, written
from docs.generate.probes import opens, shown
from docs.generate.readings import READINGS
from docs.generate.site import navigation, pages
from docs.generate.spec_pages import explained, spec_page
from nldsl.assets import specs_folder
from nldsl.cli.app import COMMANDS
from nldsl.diagnostics import catalogue
from tests.docs.fences import ROOT, Page

LAST_EQUATION = 121
"""The paper's equations are numbered up to here."""
ENDLESS = {"server", "studio", "chat"}
"""Commands that run until they are stopped: no example ends."""


def place(spec: Spec) -> str:
    return spec.place


# --- equation, specification, test -----------------------------------------------------------


def test_no_row_of_the_map_is_empty_or_dangling() -> None:
    rows = [(number, spec) for number, cited in equation_map().items() for spec in cited]
    assert len(rows) > 40
    assert named.untested() == [], "no test names these"
    assert all(1 <= number <= LAST_EQUATION for number, _ in rows)
    shown_there = map_page()
    for number, spec in rows:
        link = re.escape(f"[`{spec.place}`](../{spec.page})")
        line = rf"^\| Eq\. {number} \| {link} \| (`|with \[)"
        assert re.search(line, shown_there, re.MULTILINE), (number, spec.place)
    assert len(other_papers()) > 20
    assert all(re.search(r"\(\d{4}\)$", source) for source, _, _ in other_papers())
    for test in {test for _, spec in rows for test in named.tests_of(spec)}:
        name = test.name.rpartition("::")[2]
        assert f"def {name}(" in (ROOT / test.place).read_text(encoding="utf-8")


def test_a_citation_of_a_file_is_read_as_it_is_written() -> None:
    def own(text: str) -> list[int]:
        return [n for cited in citations(text) if not cited.source for n in cited.equations]

    assert own("Paper: Eq. 9 and 31; the rate is the solution of Eq. 56 (P13)") == [9, 31, 56]
    assert own("Sec. 8, Eq. 92, 94-97.  No equation: 12, Eqs") == [92, 94, 95, 96, 97]
    assert own("Eq. 64; Sun et al. (2023), arXiv 2307.08621, Eq. 6-8: S.  Eq. 65") == [64, 65]
    assert own("Gupta, Koren and Singer (2018), Algorithm 1, and Eq. 106-107") == [106, 107]


def test_naming_a_specification_is_more_than_a_word() -> None:
    """`linear` is a primitive, `dot` a word: only a use of the definition counts."""
    linear = next(s for s in specs() if s.place == "maps/linear.nl")
    everything = {t.id for t in named.tests() if any("linear" in text for text in t.strings)}
    assert 0 < len(named.tests_of(linear)) < len(everything) / 4


def test_readings_that_files_name_are_there() -> None:
    assert set(reading_map()) == set(READINGS) == set(range(1, 23))
    text = readings_page()
    assert all(f"{{#p{number}}}" in text for number in READINGS)


# --- the library -----------------------------------------------------------------------------


@pytest.mark.parametrize("spec", specs(), ids=place)
def test_page_of_a_specification(spec: Spec) -> None:
    text = spec_page(spec)
    assert spec.text.rstrip() in text and f"# {spec.main[1]}\n" in text
    found = explained(spec)
    assert not isinstance(found, Exception), found
    program, explanation = found
    assert "## Lowerings" in text and "## Certificate" in text
    if spec.main[0] in ("model", "block"):
        assert f"{explanation.parameter_count:,}" in text
        assert all(level.number in text for level in explanation.levels)
        assert text.count("<svg") == 1 and f"Levels of {program.name}" in text
    for row in explanation.equations:
        assert all(html.escape(f.text) in text for f in row.formulas)


def test_every_file_has_a_page_and_a_place_in_the_navigation() -> None:
    files = {
        p.relative_to(specs_folder()).with_suffix(".md").as_posix() for p in specs_folder().rglob("*.nl")
    }
    made = pages()
    assert {f"library/{name}" for name in files} <= set(made)
    listed = json.dumps(navigation(settings()["nav"]))
    assert all(f'"{name}"' in listed for name in made if name.endswith(".md"))


def settings() -> dict[str, list[object]]:
    found = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_stored_certificates_passed_and_are_of_files_that_are_there() -> None:
    known = {path_of(spec): spec for spec in specs()}
    files = sorted((ROOT / "docs" / "certificates").rglob("*.json"))
    assert len(files) >= 100
    current = 0
    for path in files:
        assert path in known, f"{path}: its specification is gone: python -m docs.generate.certificates"
        data = json.loads(path.read_text(encoding="utf-8"))
        assert data["certificate"]["passed"] and data["certificate"]["sections"]
        program = opens(known[path])
        assert not isinstance(program, Exception)
        current += stored(known[path], program) is not None
    assert current >= 0.95 * len(files), "renew them: python -m docs.generate.certificates"


def test_a_certificate_of_another_text_is_not_shown() -> None:
    spec = next(s for s in specs() if s.place == "blocks/swiglu.nl")
    program = shown(spec).open()
    other = nldsl.program("swiglu", block="swiglu", dim=32)
    assert stored(spec, program) is not None and stored(spec, other) is None
    assert fingerprint(program) != fingerprint(other)


WITHOUT = {
    "blocks/self_modifying_titans_literal.nl": "diverges within 16 tokens, and amplifies rounding on the way",
    "rules/soap.nl": "the first gradient has rank one, so its eigenbasis is not unique",
}
"""Files that no certificate can be made of, and why; as an optimiser, `soap` is verified with the rules."""


@pytest.mark.long
def test_every_specification_has_a_certificate_of_its_text() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.generate.certificates", "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == set(WITHOUT), done.stdout


# --- codes, primitives, commands, Python -----------------------------------------------------


@pytest.mark.parametrize("stage", stages())
def test_every_code_has_a_section_with_its_message(stage: str) -> None:
    text = stage_page(stage)
    sections = dict(re.findall(r"^## (NL\d{4}): (.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(stages()[stage])
    for code, section in sections.items():
        entry = catalogue()[code]
        assert entry.explanation in section and f"{{#{code.lower()}}}" in section
        assert (f"[{code}]: " in section) == bool(entry.failing), code


def test_every_code_is_in_the_index() -> None:
    assert set(re.findall(r"\[`(NL\d{4})`\]", codes_index())) == set(catalogue())


def test_every_primitive_is_there_with_an_example_that_is_right() -> None:
    text = primitives_page()
    assert len(written()) > 40
    for primitive in written():
        assert f"### {primitive.name} {{#" in text and primitive.doc in text
        assert nldsl.check(primitive.example) == []
        assert all(option.help in text for option in primitive.options)


@pytest.mark.parametrize("name", COMMANDS)
def test_page_of_a_command_has_every_option(name: str) -> None:
    text = command_page(name)
    for parameter in _command(name).params:
        if not getattr(parameter, "hidden", False):
            assert " ".join((parameter.help or "").split()).replace("|", "&#124;") in text
            assert all(f"`{o}`" in text for o in parameter.opts if o.startswith("-"))
    assert (name in EXAMPLES) == (name not in ENDLESS)


def llama(folder: Path) -> None:
    """A model of another library, which `import` brings in."""
    theirs = pytest.importorskip("transformers")
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "hidden_size": 16}
    theirs.LlamaForCausalLM(theirs.LlamaConfig(vocab_size=256, **sizes)).save_pretrained(folder)


def test_examples_of_the_commands_run(tmp_path: Path) -> None:
    page = Page(tmp_path, "commands")
    llama(tmp_path / "llama")
    for name, words in example_lines():
        assert words[0] == name
        page.command(f"nldsl {' '.join(repr(w) if ' ' in w else w for w in words)}", 0, name)


def test_every_public_name_is_on_the_page_of_python() -> None:
    text = pages()["reference/python.md"]()
    for name in nldsl.__all__:
        assert name.startswith("__") or f"### nldsl.{name} " in text


@pytest.mark.parametrize("name", sorted(m.name for m in pkgutil.iter_modules(docs.generate.__path__)))
def test_examples_in_the_docstrings_of_the_generator(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"docs.generate.{name}")).failed == 0


# --- the site --------------------------------------------------------------------------------


def test_what_a_page_loads_from_elsewhere_is_found() -> None:
    assert external('<link rel="stylesheet" href="https://fonts.example/css">') == [
        "https://fonts.example/css"
    ]
    assert external('<img srcset="//a.b/c.png 2x" src="d.png"><a href="https://e.f">e</a>') == [
        "//a.b/c.png 2x"
    ]
    assert external("@import 'https://g.h/i.css'; a { background: url(//j.k/l) }") == [
        "https://g.h/i.css",
        "//j.k/l",
    ]


def digests(seed: str) -> str:
    script = (
        "import hashlib\nfrom docs.generate.site import pages\n"
        "for name, make in sorted(pages().items()): print(name, hashlib.sha256(make().encode()).hexdigest())"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.long
def test_pages_are_the_same_every_time() -> None:
    assert digests("1") == digests("2") != ""


@pytest.mark.long
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "site").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert external(text) == [], path
        assert 'class="language-nl' in text or "graph-" in path.name or "nl" not in path.suffixes
