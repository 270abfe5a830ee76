"""YAML as nested nodes with positions, from the event stream and within limits.

Only `yaml.parse` is used: no tag is resolved, no alias expanded, nothing is constructed.  Every
scalar is a string; what it means is decided by the language, so `no` is a name and `1e-3` a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from nldsl.source import Span
from nldsl.syntax.limits import MAX_NESTING, MAX_YAML_CHARACTERS, MAX_YAML_NODES
from nldsl.syntax.scan import Place


class FaultyYamlError(Exception):
    """The file is not usable YAML; the reason has been reported."""


@dataclass(frozen=True, eq=False)
class Scalar:
    """A scalar; `start` and `end` are its offsets in the file, quotes included."""

    value: str
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Sequence:
    """A list of nodes."""

    items: tuple[Yaml, ...]
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Mapping:
    """Keys and values in the order of the file; keys are scalars and differ."""

    entries: tuple[tuple[Scalar, Yaml], ...]
    start: int
    end: int


Yaml = Scalar | Sequence | Mapping


def compose(place: Place) -> Yaml | None:
    """The single document of a YAML text; `None` if it is empty.

    Raises:
        FaultyYamlError: after reporting why the text cannot be used.
    """
    if len(place.text) > MAX_YAML_CHARACTERS:
        message = f"a YAML file has at most {MAX_YAML_CHARACTERS} characters"
        place.report("NL0208", message, (0, 1), help="use the text form, or several files and `use`")
        raise FaultyYamlError
    return _Composer(place).document()


class _Composer:
    """Builds nodes from events; a stack instead of recursion."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.count = 0

    def fault(self, code: str, message: str, span: tuple[int, int], help: str) -> FaultyYamlError:
        self.place.report(code, message, span, help=help)
        return FaultyYamlError(message)

    def document(self) -> Yaml | None:
        root: Yaml | None = None
        documents = 0
        stack: list[tuple[yaml.Event, list[Yaml]]] = []
        for event in self._events():
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.fault(
                        "NL0209", "a second document in one file", _extent(event), "remove `---`"
                    )
            node = self._node(event, stack)
            if node is None:
                continue
            if stack:
                stack[-1][1].append(node)
            else:
                root = node
        return root

    def _events(self) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(self.place.text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            at = min(mark.index if mark else 0, max(0, len(self.place.text) - 1))
            problem = _plain(error.problem or "it breaks off")
            raise self.fault(
                "NL0201", f"this is not YAML: {problem}", (at, at + 1), _hint(problem)
            ) from error
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            at = getattr(error, "position", 0)
            message = "this is not YAML: it holds a character that YAML does not allow"
            raise self.fault("NL0201", message, (at, at + 1), "save it as plain UTF-8 text") from error

    def _node(self, event: yaml.Event, stack: list[tuple[yaml.Event, list[Yaml]]]) -> Yaml | None:
        """The node that `event` completes, if it completes one."""
        if isinstance(event, yaml.NodeEvent):
            self._check(event, len(stack))
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(event.value, *_extent(event))
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append((event, []))
            return None
        if isinstance(event, yaml.CollectionEndEvent):
            opened, children = stack.pop()
            start, end = _extent(opened)[0], _extent(event)[1]
            if isinstance(event, yaml.SequenceEndEvent):
                return Sequence(tuple(children), start, end)
            return self._mapping(children, start, end)
        return None

    def _check(self, event: yaml.NodeEvent, depth: int) -> None:
        self.count += 1
        where = _extent(event)
        if self.count > MAX_YAML_NODES:
            help = "use the text form, or several files and `use`"
            raise self.fault("NL0208", f"a YAML file has at most {MAX_YAML_NODES} nodes", where, help)
        if depth > MAX_NESTING:
            message = f"this YAML is nested more than {MAX_NESTING} deep"
            raise self.fault("NL0208", message, where, "give the inner parts a block of their own")
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            message = f"`{sign}{event.anchor}`: programs have no anchors and aliases"
            raise self.fault("NL0204", message, where, "write the value out, or quote it if it is text")
        tag = getattr(event, "tag", None)
        if tag:
            raise self.fault("NL0203", f"`{tag}`: programs have no tags", where, "remove the tag")

    def _mapping(self, children: list[Yaml], start: int, end: int) -> Mapping:
        seen: dict[str, Scalar] = {}
        entries: list[tuple[Scalar, Yaml]] = []
        for key, value in zip(children[::2], children[1::2], strict=True):
            if not isinstance(key, Scalar):
                raise self.fault("NL0206", "a key is one line of text", (key.start, key.end), "quote the key")
            if key.value in seen:
                first = seen[key.value]
                self.place.report(
                    "NL0202",
                    f"key `{key.value}` stands twice in one mapping",
                    (key.start, key.end),
                    help="remove one of them; a second would silently replace the first",
                    secondary=((first.start, first.end, "first here"),),
                )
                continue
            seen[key.value] = key
            entries.append((key, value))
        return Mapping(tuple(entries), start, end)


def _extent(event: yaml.Event) -> tuple[int, int]:
    start = event.start_mark.index if event.start_mark else 0
    end = event.end_mark.index if event.end_mark else start
    return start, max(end, start)


def _plain(problem: str) -> str:
    """The parser's words without its names for tokens."""
    for name, words in (
        ("<block end>", "the end of the block"),
        ("'<scalar>'", "text"),
        ("<scalar>", "text"),
    ):
        problem = problem.replace(name, words)
    return re.sub(r"'?<([a-z ]+)>'?", r"\1", problem)


def _hint(problem: str) -> str:
    if "\\t" in problem or "tab" in problem:
        return "indent with spaces; YAML does not allow tabs"
    if "mapping values are not allowed" in problem:
        return "quote a text that contains `: `"
    if "alias" in problem or "anchor" in problem:
        return "quote a text that begins with `*` or `&`"
    return "check indentation, quotes and brackets; a text with `: `, ` #` or a leading `[` needs quotes"


def place_of(scalar: Scalar, outer: Place) -> Place:
    """The text of a scalar as a place of its own, its characters mapped back to the file."""
    offsets = _align(scalar.value, outer.text, scalar.start, scalar.end)

    def locate(start: int, end: int) -> Span:
        if offsets is None or not scalar.value:
            return outer.locate(scalar.start, scalar.end)
        first = offsets[min(start, len(offsets) - 1)]
        last = offsets[min(max(end - 1, start), len(offsets) - 1)] + 1
        return outer.locate(first + (1 if start >= len(offsets) else 0), max(last, first))

    return Place(scalar.value, locate, outer.bag)


def _align(value: str, text: str, start: int, end: int) -> list[int] | None:
    """For every character of `value` its offset in `text[start:end]`; `None` if they do not match.

    Folding turns line ends into spaces and escapes stand for other characters, so white space
    matches any white space and a backslash or quote may stand before a character.
    """
    if text[start : start + 1] in ("|", ">"):
        start = max(text.find("\n", start, end), start)
    elif text[start : start + 1] in ('"', "'"):
        start, end = start + 1, end - 1
    offsets: list[int] = []
    at = start
    for sign in value:
        if sign.isspace():
            offsets.append(min(at, end))
            while at < end and text[at].isspace():
                at += 1
            continue
        while at < end and (text[at].isspace() or (text[at] in "\\'" and text[at : at + 1] != sign)):
            at += 1
        if at + 1 < end and text[at] == sign and text[at + 1] == sign and sign in "'\\" and start > 0:
            at += 1 if text[start - 1] in "\"'" else 0
        if at >= end or text[at] != sign:
            return None
        offsets.append(at)
        at += 1
    return offsets
